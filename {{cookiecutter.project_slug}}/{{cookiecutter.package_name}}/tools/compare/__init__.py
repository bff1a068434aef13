"""Many runs and what they say together: combinations, the processes that train them, statistics, figures, a report."""
