"""A teacher's most probable tokens, and what is kept of all others.  Axes: P positions, V vocabulary, k tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import InvalidInput
from ..loss import Hidden, TeacherOutput, TeacherRows, TopK


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
        return _cut_table(output, labels_P, k, output.vocabulary or vocabulary)
    numbers = output.hidden if isinstance(output, Hidden) else output.logits
    reader = TeacherRows(output, vocabulary, torch.float64 if numbers.dtype == torch.float64 else torch.float32)
    size, parts = max(SETTINGS.fewest, SETTINGS.chunk_bytes // (4 * vocabulary)), []
    for start in range(0, len(numbers), size):
        rows = slice(start, start + size)
        parts.append(_rank_chunk(reader.log_p(rows, 1.0), labels_P[rows].to(numbers.device), k))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _rank_chunk(log_p_CV: Tensor, labels_C: Tensor, k: int) -> dict[str, Tensor]:
    p_CV = log_p_CV.exp()
    entropy_C = -torch.where(p_CV == 0, 0.0, p_CV * log_p_CV).sum(-1)
    log_p_Ck, ids_Ck = log_p_CV.topk(k, -1)
    tail_C = p_CV.scatter_(-1, ids_Ck, 0.0).sum(-1)  # what is left, not 1 minus the rest: it may be tiny
    log_truth_C1 = log_p_CV.gather(-1, labels_C[:, None])
    return _name_columns(ids_Ck, log_p_Ck, entropy_C[:, None], log_truth_C1, tail_C[:, None])


def _cut_table(output: TopK, labels_P: Tensor, k: int, vocabulary: int) -> dict[str, Tensor]:
    """Do the same from a table; what it leaves out is spread evenly over the tokens that it does not hold."""
    if output.ids.shape[-1] < k:
        raise InvalidInput(f"a table holds {output.ids.shape[-1]} tokens a position; wanted at least k = {k}.")
    others = max(vocabulary - output.ids.shape[-1], 1)
    all_p_Pk = output.log_p.float().exp()
    tail_P = (1 - all_p_Pk.sum(-1)).clamp_min(0.0) if output.tail is None else output.tail.float()
    log_other_P = (tail_P / others).log()
    entropy_P, log_truth_P = output.entropy, output.log_truth
    if entropy_P is None:
        summed_P = -torch.where(all_p_Pk == 0, 0.0, all_p_Pk * output.log_p.float()).sum(-1)
        entropy_P = summed_P - torch.where(tail_P == 0, 0.0, tail_P * log_other_P)
    if log_truth_P is None:
        is_label_Pk = output.ids == labels_P[:, None].to(output.ids.device)
        held_P = torch.where(is_label_Pk, output.log_p.float(), -torch.inf).amax(-1)
        log_truth_P = torch.where(is_label_Pk.any(-1), held_P, log_other_P)
    log_p_Pk, place_Pk = output.log_p.topk(k, -1)
    tail_P = tail_P + all_p_Pk.scatter(-1, place_Pk, 0.0).sum(-1)
    ids_Pk = output.ids.gather(-1, place_Pk)
    return _name_columns(ids_Pk, log_p_Pk, entropy_P[:, None], log_truth_P[:, None], tail_P[:, None])


def _name_columns(ids: Tensor, log_p: Tensor, entropy: Tensor, log_truth: Tensor, tail: Tensor) -> dict[str, Tensor]:
    floats = {"log_p": log_p, "entropy": entropy, "log_truth": log_truth, "tail": tail}
    return {"ids": ids, **{name: value.float() for name, value in floats.items()}}
