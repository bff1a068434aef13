"""TensorBoard's Custom Scalars, grouped: what a person looks for first comes first."""

from typing import Any

ALPHA = {
    "alpha of every layer": ["alpha/.*"],
    "shift of every layer": ["shift/.*"],
    "1/std of every norm's input": ["inverse_std/.*"],
    "correlation of alpha with 1/std over the layers": ["alpha_vs_inverse_std/correlation"],
    "gradient of every alpha, its size": ["alpha_grad/.*"],
}
STREAM = {
    "share of saturated inputs": ["saturated/.*"],
    "std of every norm's input and the last block's output": ["input_std/.*", "output_std/.*"],
    "R2 of a tanh and of a line through input and output": ["fit_tanh/.*", "fit_line/.*"],
}


def layout(quantities: set[str], fitted: bool, monitor: str | None) -> dict[str, dict[str, list[Any]]]:
    """Charts with a line for every layer, by category and title, as `add_custom_scalars` takes them.

    Args:
        quantities: of the norms, that this run logs: what stands before the slash of a tag.
        fitted: whether curves are fitted to some norms.
        monitor: what the best checkpoint is best at.
    """
    known = set(quantities)
    if "alpha" in known:
        known |= {"alpha_vs_inverse_std", "alpha_grad"}
    else:
        known -= {"inverse_std"}  # beside alpha it says something, alone it is the std again
    if fitted:
        known |= {"fit_tanh"}
    training = {"loss": ["train/loss", "val/loss"]}
    if monitor not in (None, "val/loss"):
        training[str(monitor)] = [str(monitor)]
    groups = {"alpha": ALPHA, "saturation and stream": STREAM}
    charts = {
        title: {name: ["Multiline", tags] for name, tags in group.items() if tags[0].partition("/")[0] in known}
        for title, group in groups.items()
    }
    charts["training"] = {name: ["Multiline", tags] for name, tags in training.items()}
    return {title: group for title, group in charts.items() if group}
