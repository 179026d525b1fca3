"""Several processes, one run: started by `accelerate launch` or torchrun, the first leads, the others follow.

The first process does what a single one would: it alone reads and writes the log, plans, measures, and writes the
version. What has to happen in all of them it calls through `in_all_processes`; the others wait in `follow` for such
calls and never open the log. Each takes its share of the micro-batches of every step.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from train.batches import MicroBatch
from train.training_run import TrainingError

T = TypeVar("T")


def process_count() -> int:
    """How many processes the launcher started; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    return process_count() == 1 or int(os.environ.get("RANK", "0")) == 0


def refuse_several(what: str) -> None:
    """Raises TrainingError if a launcher started several processes for something that only one can do."""
    if process_count() > 1:
        raise TrainingError(f"{what} runs in one process, but {process_count()} were started: call it without launcher")


def in_all_processes(function: Callable[..., T], *args: Any, here: Mapping[str, Any], **kwargs: Any) -> T:
    """Calls a module's function in every process and returns what it gives in this one, the first.

    `here`: further arguments for this process alone, such as functions that write to the log.
    """
    if process_count() > 1:
        from_first((function, args, kwargs))
    return function(*args, **kwargs, **here)


@contextmanager
def leading() -> Iterator[None]:
    """What the first process does while the others `follow`; they may leave when it is done.

    If it fails they are not told: the launcher ends them with it, whatever they wait for.
    """
    yield
    if process_count() > 1:
        from_first(None)


def follow() -> None:
    """Does what the first process calls through `in_all_processes`, until that has no more to do."""
    while (call := from_first(None)) is not None:
        function, args, kwargs = call
        function(*args, **kwargs)


def from_first(value: Any) -> Any:
    """The first process's `value`, in every process; the value itself where there is one only."""
    if process_count() == 1:
        return value
    _join()
    return broadcast_object_list([value])[0]


def wait_for_all() -> None:
    if process_count() > 1:
        _join()
        dist.barrier()


def share_of(micro_batches: Sequence[MicroBatch]) -> list[MicroBatch]:
    """This process's part of a step's micro-batches, as many in each process: what is sharded is gathered by all at the
    same time. The longest go round first; where they do not suffice, one is passed through without counting."""
    count = process_count()
    if count == 1:
        return list(micro_batches)
    ordered = sorted(micro_batches, key=lambda micro: -micro.row.ids.numel())
    mine = ordered[int(os.environ["RANK"]) :: count]
    blank = replace(ordered[-1], loss_mask=torch.zeros_like(ordered[-1].loss_mask))
    return mine + [blank] * (-(-len(ordered) // count) - len(mine))


def average_gradients(model: nn.Module) -> None:
    """Of all processes, as DistributedDataParallel would have it; a process without a gradient counts as 0."""
    if process_count() == 1:
        return
    for parameter in model.parameters():
        if parameter.requires_grad:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            dist.all_reduce(parameter.grad)
            parameter.grad /= process_count()


def total(sums: Mapping[str, float], greatest: Sequence[str], device: torch.device) -> dict[str, float]:
    """The sums of all processes, of the names in `greatest` the maximum."""
    if process_count() == 1:
        return dict(sums)
    names = sorted(sums)
    values = torch.tensor([sums[name] for name in names], device=device, dtype=torch.float32)
    highest = values.clone()
    dist.all_reduce(values)
    dist.all_reduce(highest, op=dist.ReduceOp.MAX)
    return {name: float((highest if name in greatest else values)[index]) for index, name in enumerate(names)}


def through_root(root: nn.Module, compute: Callable[[], T]) -> T:
    """`compute()` in the place of `root`'s forward pass, whose hooks gather what FSDP has sharded."""
    own = vars(root).get("forward")
    root.forward = compute
    try:
        result: T = root()
        return result
    finally:
        del root.forward
        if own is not None:
            root.forward = own


def whole_weights(model: nn.Module) -> dict[str, Tensor]:
    """All weights of a model that FSDP has sharded, on the CPU of the first process; every process must call it."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    weights: dict[str, Tensor] = get_model_state_dict(model, options=options)
    return weights


def fill(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Takes over `weights`; of tied ones one name is enough. Raises TrainingError if any weight stays as it is."""
    missing, unknown = model.load_state_dict(dict(weights), strict=False)
    named = dict(model.named_parameters(remove_duplicate=False))
    filled = {named[name].data_ptr() for name in weights if name in named}
    if left := [name for name in missing if name not in named or named[name].data_ptr() not in filled] + unknown:
        raise TrainingError(f"the sharded weights are not those of the model: {', '.join(left[:3])}")


class Alone:
    """An Accelerator whose `gather` and `reduce` give what this process has: TRL gathers figures of every micro-batch
    that nobody reads, and processes have rows of different sizes."""

    def __init__(self, accelerator: Any) -> None:
        self._accelerator = accelerator

    def __getattr__(self, name: str) -> Any:
        return getattr(self._accelerator, name)

    def gather(self, tensor: Tensor) -> Tensor:
        return tensor

    def reduce(self, tensor: Tensor, reduction: str = "sum") -> Tensor:
        return tensor


def _join() -> None:
    PartialState(cpu=not torch.cuda.is_available())
