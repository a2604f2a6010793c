"""Operations that cut, join, reorder or reshape tensors."""

import numpy as np

from searchspaces.network.aten.call import Call, Signal, Unsupported, image_axis
from searchspaces.network.operators import Shape


def reshape(call: Call, x: Signal, shape: Shape) -> str:
    """Give `x` another shape, with as plain an operator as does it."""
    if x.shape == shape:
        return x.name
    return call.add("Flatten", x) if len(shape) == 1 else call.add("Reshape", x, shape=shape)


def same(call: Call) -> str:
    """Operations that change nothing when a network runs."""
    return call.signal().name


def expand(call: Call) -> Signal:
    """Repeat a tensor along axes of length 1, which is left to the operation that takes it."""
    x = call["self"]
    if not isinstance(x, Signal) or len(x.shape) != len(call.shape):
        raise Unsupported("it adds an axis")
    return Signal(x.name, call.shape)


def permute(call: Call) -> str:
    """Reorder the axes."""
    x = call.signal()
    dims = [axis % (len(x.shape) + 1) for axis in call["dims"]]
    if dims[0] != 0:
        raise Unsupported("it moves the batch axis")
    return call.add("Transpose", x, perm=tuple(axis - 1 for axis in dims[1:]))


def transpose(call: Call) -> str:
    """Swap two axes."""
    perm = list(range(len(call.signal().shape)))
    first, second = call.axis("dim0"), call.axis("dim1")
    perm[first], perm[second] = perm[second], perm[first]
    return call.add("Transpose", call.signal(), perm=tuple(perm))


def _cut(call: Call, axis: int, start: int, end: int) -> str:
    x = call.signal()
    whole = (start, end) == (0, x.shape[axis])
    return x.name if whole else call.add("Slice", x, axis=axis, start=start, end=end)


def take(call: Call) -> str:
    """A slice of one axis."""
    x = call.signal()
    if call["step"] != 1:
        raise Unsupported("a slice with a step has no counterpart")
    if x.shape == call.shape and call["dim"] == 0 and call["start"] in (None, 0):
        return x.name
    axis = call.axis()
    start, end, _ = slice(call["start"], call["end"]).indices(x.shape[axis])
    return _cut(call, axis, start, end)


def pick(call: Call, axis: int, index: int) -> str:
    """One entry along `axis`, which disappears."""
    index %= call.signal().shape[axis]
    one = _cut(call, axis, index, index + 1)
    shape = call.builder.shapes[one]
    return reshape(call, Signal(one, shape), shape[:axis] + shape[axis + 1 :])


def unbind(call: Call) -> list[str]:
    """All entries along an axis."""
    axis = call.axis()
    return [pick(call, axis, index) for index in range(call.signal().shape[axis])]


def split(call: Call) -> list[str]:
    """Cut into pieces of one size, or of given sizes."""
    axis = call.axis()
    side = call.signal().shape[axis]
    sizes = call["split_sizes"]
    if sizes is None:
        step = call["split_size"]
        sizes = [min(step, side - start) for start in range(0, side, step)]
    ends = np.cumsum(sizes).tolist()
    return [_cut(call, axis, end - size, end) for size, end in zip(sizes, ends, strict=True)]


def _signals(call: Call) -> list[Signal]:
    signals: list[Signal] = call["tensors"]
    if any(not isinstance(x, Signal) or x.shape != call.builder.shapes[x.name] for x in signals):
        raise Unsupported("it joins tensors that are repeated by expand or do not depend on the images")
    return signals


def concat(call: Call) -> str:
    """Join along an axis."""
    signals = _signals(call)
    return call.add("Concat", *signals, axis=image_axis(call["dim"], len(signals[0].shape)))


def stack(call: Call) -> str:
    """Join along a new axis."""
    signals = _signals(call)
    shape = signals[0].shape
    axis = image_axis(call["dim"], len(shape) + 1)
    single = (*shape[:axis], 1, *shape[axis:])
    return call.add("Concat", *(call.add("Reshape", x, shape=single) for x in signals), axis=axis)


def channel_shuffle(call: Call) -> str:
    """Interleave the channels of `groups` groups (arXiv 1707.01083)."""
    x, groups = call.signal(), call["groups"]
    split = call.add("Reshape", x, shape=(groups, x.shape[0] // groups, *x.shape[1:]))
    return call.add("Reshape", call.add("Transpose", split, perm=(1, 0, 2, 3)), shape=x.shape)
