"""A teacher's most probable tokens, and what is kept of all others.  Axes: P positions, V vocabulary, k tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...errors import InvalidInput
from ..loss import Hidden, Logits, TeacherOutput, TopK


@dataclass(frozen=True)
class RankingSettings:
    """Memory of ranking; ``tests/safekd/language/cache/test_token_ranking.py`` would notice.

    Attributes:
        chunk_bytes: Of the log-probabilities (C, V) of some positions; about four times as much is held at once.
        fewest: Positions of a chunk, however large the vocabulary.
    """

    chunk_bytes: int = 1 << 24
    fewest: int = 16


SETTINGS = RankingSettings()


def rank_tokens(output: TeacherOutput, labels_P: Tensor, k: int, vocabulary: int) -> dict[str, Tensor]:
    """Return the k most probable tokens at each position, and three numbers of the whole distribution, in float32.

    Args:
        output: What the teacher said at P positions.
        labels_P: The labels there, (P,).
        k: How many tokens, at most ``vocabulary``.
        vocabulary: V; what the teacher scores beyond is left out.

    Returns:
        ``ids`` and ``log_p`` (P, k), the most probable first; ``entropy`` in nats, ``log_truth``, the log-probability
        of the label, and ``tail``, the mass of all other tokens, (P, 1) each.

    Raises:
        InvalidInput: A label is no token of the vocabulary, or fewer than k tokens are known.
    """
    if len(labels_P) and int(labels_P.max()) >= vocabulary:
        raise InvalidInput(f"A label is {int(labels_P.max())}; wanted tokens below the vocabulary of {vocabulary:,}.")
    if isinstance(output, TopK):
        return _cut_table(output, labels_P, k)
    parts = [
        _rank_chunk(log_p_CV, labels_P[rows].to(log_p_CV.device), k)
        for rows, log_p_CV in _read_chunks(output, vocabulary)
    ]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _read_chunks(output: Hidden | Logits, vocabulary: int) -> Iterator[tuple[slice, Tensor]]:
    """Yield log-probabilities of some positions at a time, in float32 or wider."""
    size = max(SETTINGS.fewest, SETTINGS.chunk_bytes // (4 * vocabulary))
    head = None
    if isinstance(output, Hidden):
        cut = output.head.cut(vocabulary)
        wide = torch.promote_types(cut.weight.dtype, torch.float32)
        head = replace(cut, weight=cut.weight.detach().to(wide), bias=None if cut.bias is None else cut.bias.to(wide))
    for start in range(0, output.lead.numel(), size):
        rows = slice(start, start + size)
        if head is not None:
            assert isinstance(output, Hidden)
            z_CV = head.logits(output.hidden[rows])
        else:
            assert isinstance(output, Logits)
            z_CV = output.logits[rows, :vocabulary]
            z_CV = z_CV.to(torch.promote_types(z_CV.dtype, torch.float32))
        yield rows, torch.log_softmax(z_CV, -1)


def _rank_chunk(log_p_CV: Tensor, labels_C: Tensor, k: int) -> dict[str, Tensor]:
    p_CV = log_p_CV.exp()
    entropy_C = -torch.where(p_CV == 0, 0.0, p_CV * log_p_CV).sum(-1)
    log_p_Ck, ids_Ck = log_p_CV.topk(k, -1)
    tail_C = p_CV.scatter_(-1, ids_Ck, 0.0).sum(-1)  # what is left, not 1 minus the rest: it may be tiny
    log_truth_C1 = log_p_CV.gather(-1, labels_C[:, None])
    return _name_columns(ids_Ck, log_p_Ck, entropy_C[:, None], log_truth_C1, tail_C[:, None])


def _cut_table(output: TopK, labels_P: Tensor, k: int) -> dict[str, Tensor]:
    """Do the same from a table; what it leaves out is spread evenly over the tokens that it does not hold."""
    if output.ids.shape[-1] < k:
        raise InvalidInput(f"a table holds {output.ids.shape[-1]} tokens a position; wanted at least k = {k}.")
    others = max(output.vocabulary - output.ids.shape[-1], 1)
    all_p_Pk, tail_P = output.log_p.float().exp(), output.tail
    log_other_P = (tail_P / others).log()
    entropy_P, log_truth_P = output.entropy, output.log_truth
    if entropy_P is None:
        summed_P = -torch.where(all_p_Pk == 0, 0.0, all_p_Pk * output.log_p.float()).sum(-1)
        entropy_P = summed_P - torch.where(tail_P == 0, 0.0, tail_P * log_other_P)
    if log_truth_P is None:
        is_label_Pk = output.ids == labels_P[:, None]
        held_P = torch.where(is_label_Pk, output.log_p.float(), -torch.inf).amax(-1)
        log_truth_P = torch.where(is_label_Pk.any(-1), held_P, log_other_P)
    log_p_Pk, place_Pk = output.log_p.topk(k, -1)
    tail_P = tail_P + all_p_Pk.scatter(-1, place_Pk, 0.0).sum(-1)
    ids_Pk = output.ids.gather(-1, place_Pk)
    return _name_columns(ids_Pk, log_p_Pk, entropy_P[:, None], log_truth_P[:, None], tail_P[:, None])


def _name_columns(ids: Tensor, log_p: Tensor, entropy: Tensor, log_truth: Tensor, tail: Tensor) -> dict[str, Tensor]:
    floats = {"log_p": log_p, "entropy": entropy, "log_truth": log_truth, "tail": tail}
    return {"ids": ids, **{name: value.float() for name, value in floats.items()}}
