"""tanh, erf and their slopes in fp32, for tiles of Triton kernels; tests/test_norms_kernels.py checks the errors.

| | largest error | used for |
|---|---|---|
| hardware tanh (`tanh.approx.f32`) | 2^-11 of the value, says NVIDIA | 16 bits |
| tanh | 4e-7 of the value (2e-7 in the interpreter) | fp32, and 16 bits in the interpreter |
| erf of 16 bits | 1.5e-4 | 16 bits |
| erf | 3e-7 of the value | fp32 |
| slopes | 4e-6 of the value, or 1e-12 | all |

These are worst cases: NVIDIA says that `ex2.approx` is off by up to 2^-22.5 of its value, `rcp.approx` by up to an ulp.
The polynomials are those of their degree with the least maximum relative error, so fitted for this file.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs

import torch
import triton
import triton.language as tl

HARDWARE = tl.constexpr(not triton.knobs.runtime.interpret and torch.version.hip is None)


@triton.jit
def curve(u, ERF: tl.constexpr, LOW: tl.constexpr):
    """f(u); LOW says that 16 bits of it are wanted."""
    if ERF:
        return _erf_low(u) if LOW else _erf(u)
    elif LOW and HARDWARE:
        return tl.inline_asm_elementwise("tanh.approx.f32 $0, $1;", "=f,f", [u], tl.float32, is_pure=True, pack=1)
    else:
        return _tanh(u)


@triton.jit
def curve_and_slope(u, ERF: tl.constexpr, LOW: tl.constexpr):
    """f(u) and f'(u) / slope_scale. Not from 1 - f * f, which has no digit left where f is nearly 1."""
    if ERF:
        f = _erf_low(u) if LOW else _erf(u)
        slope = _exp2(u * u * -1.4426950408889634)
    else:
        e = _exp2(tl.abs(u) * -2.8853900817779268)
        r = _reciprocal(1 + e)
        f = tl.where(u < 0, 1 - 2 * r, 2 * r - 1)
        slope = e * r * r
    return f, slope


@triton.jit
def slope_scale(ERF: tl.constexpr):
    """2 / sqrt(pi) or 4."""
    return 1.1283791670955126 if ERF else 4.0


@triton.jit
def _tanh(u):
    """(1 - e) / (1 + e) with e = exp(-2 |u|), and near 0, where 1 - e would lose precision, a polynomial."""
    z = u * u
    p = -0.00585220567882061
    p = p * z + 0.02075367048382759
    p = p * z - 0.05376872047781944
    p = p * z + 0.13331688940525055
    p = p * z - 0.3333328366279602
    near = u + u * z * p
    e = _exp2(tl.abs(u) * -2.8853900817779268)
    far = (1 - e) * _reciprocal(1 + e)
    return tl.where(z < 0.36, near, tl.where(u < 0, -far, far))


@triton.jit
def _erf(u):
    """A polynomial near 0, and 1 - exp(-u^2) * q(1 / (1 + |u| / 2)) beyond."""
    z = u * u
    p = -0.0006090395036153495
    p = p * z + 0.005011971574276686
    p = p * z - 0.026778915897011757
    p = p * z + 0.11282140761613846
    p = p * z - 0.3761252462863922
    p = p * z + 1.1283791065216064
    t = _reciprocal(1 + 0.5 * tl.abs(u))
    q = -0.2063114494085312
    q = q * t + 0.5633166432380676
    q = q * t + 0.023138556629419327
    q = q * t + 0.3446945250034332
    q = q * t + 0.2751394510269165
    far = 1 - _exp2(z * -1.4426950408889634) * q * t
    return tl.where(z < 0.81, u * p, tl.where(u < 0, -far, far))


@triton.jit
def _erf_low(u):
    """An odd polynomial up to |u| = 2.7, and its value there beyond."""
    u = tl.clamp(u, -2.7, 2.7, propagate_nan=tl.PropagateNan.ALL)
    z = u * u
    p = -8.149918357958086e-07
    p = p * z + 2.856634819181636e-05
    p = p * z - 0.00044145475840196013
    p = p * z + 0.0040353634394705296
    p = p * z - 0.024846917018294334
    p = p * z + 0.1110510602593422
    p = p * z - 0.37549132108688354
    p = p * z + 1.1283396482467651
    return u * p


@triton.jit
def _exp2(x):
    """Without the scaling that spares denormal numbers, which is of no use here."""
    if HARDWARE:
        return tl.inline_asm_elementwise("ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], tl.float32, is_pure=True, pack=1)
    else:
        return tl.exp2(x)


@triton.jit
def _reciprocal(x):
    """Of x from 1 on."""
    if HARDWARE:
        return tl.inline_asm_elementwise("rcp.approx.ftz.f32 $0, $1;", "=f,f", [x], tl.float32, is_pure=True, pack=1)
    else:
        return 1 / x
