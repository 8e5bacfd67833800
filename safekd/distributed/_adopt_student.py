"""Which kind of student a run was given."""

from __future__ import annotations

from torch import nn

from ..errors import InvalidInput
from ._ranks import Ranks
from ._trained_student import COMPILED, CompiledStudent, DataParallelStudent, TrainedStudent, is_shard


def adopt_student(student: nn.Module, ranks: Ranks) -> TrainedStudent:
    """Return a student as the trainer handles it, whatever wraps it.

    Args:
        student: A plain module, one in DistributedDataParallel, or one sharded by ``fully_shard``.
        ranks: Who trains it.

    Raises:
        InvalidInput: It is wrapped by something else that reduces gradients, or sharded over other ranks.
    """
    if isinstance(student, nn.parallel.DistributedDataParallel):
        return DataParallelStudent(student, ranks)
    if COMPILED in dict(student.named_children()):
        return CompiledStudent(student, ranks)
    if isinstance(student, nn.DataParallel) or type(student).__name__ == "FullyShardedDataParallel":
        raise InvalidInput(
            f"The student is inside {type(student).__name__}, which cannot be trained under constraints; wrap it by "
            "torch.nn.parallel.DistributedDataParallel, shard it by torch.distributed.fsdp.fully_shard, or give it "
            "plain: under torchrun gradients are then added up as well."
        )
    if any(is_shard(p) for p in student.parameters()):
        from ._sharded_student import ShardedStudent  # imports the half of torch that is about shards

        return ShardedStudent(student, ranks)
    return TrainedStudent(student, ranks)
