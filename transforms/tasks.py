"""Tasks of blocks: what dask.delayed makes, made in a tenth of its time where there are hundreds of them."""

import uuid
from collections.abc import Callable, Sequence
from typing import Any

from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph
from dask.utils import funcname

Argument = Delayed | Sequence[Delayed]


def task(function: Callable[..., Any], *arguments: Argument) -> Delayed:
    """Call a function on what other tasks give; nothing is computed.

    dask.delayed looks through each argument for tasks, and goes through the whole graph behind every list of
    them. Here arguments are tasks and lists of tasks; bind all else with `functools.partial`.

    Parameters
    ----------
    function : callable
    *arguments : Delayed or sequence of Delayed
        A sequence reaches the function as a list of results.

    Returns
    -------
    dask.delayed.Delayed
    """
    given: list[list[Any]] = [[one] if isinstance(one, Delayed) else list(one) for one in arguments]
    keys = [one.key if isinstance(one, Delayed) else [each.key for each in one] for one in arguments]
    name = f"{funcname(function)}-{uuid.uuid4().hex}"
    graph = HighLevelGraph.from_collections(
        name, {name: (function, *keys)}, dependencies=[each for one in given for each in one]
    )
    return Delayed(name, graph)
