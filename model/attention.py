"""Computes causal softmax attention with the library's kernel, or in blocks of matmuls where that is faster.

With ``documents`` a token attends only within its document (``model.documents``). Shape suffixes as in ``model.mla``; S
is a block of queries or keys.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from model.documents import attention_bias
from profiles.errors import SpecError

AttentionKind = Literal["sdpa", "blocked"]
Attention = Callable[..., Tensor]

BLOCK = 128  # queries or keys: large enough for a full-speed matmul, small enough to skip most masked scores
MAX_BLOCKS = 8  # torch.compile unrolls them


def resolve_attention(kind: AttentionKind) -> Attention:
    """Return the function ``attention(q_BHTQ, k_BHTQ, v_BHTE, scale, documents) -> out_BHTE`` of that name.

    Each token attends to itself and all tokens before it, or to those of its document where ``documents`` is what
    ``documents_for`` returned. "sdpa" is ``scaled_dot_product_attention``. "blocked"
    computes the same by matmuls over blocks, with B * H * T * max(128, T / 8) scores in memory. It is faster on a CPU,
    where the library's kernel does not reach the speed of matmuls, least of all backward. It skips blocks in which no
    query and key are of one document, unless torch.compile has unrolled them. In bf16 its scores are the
    bf16 results of a matmul, while the library keeps them in fp32: its error is up to twice as large.

    Raises SpecError for an unknown kind.
    """
    if kind not in _ATTENTIONS:
        raise SpecError(f"train.attention: {kind!r} is not one of {', '.join(_ATTENTIONS)}")
    return _ATTENTIONS[kind]


def documents_for(kind: AttentionKind, ids_BT: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the documents of a batch as ``resolve_attention(kind)`` takes them, for queries in ``dtype``.

    "sdpa" needs a bias of B * T * T values, which all layers share; "blocked" the numbers of the documents.
    """
    return attention_bias(ids_BT, dtype) if kind == "sdpa" else ids_BT


def _sdpa(q_BHTQ: Tensor, k_BHTQ: Tensor, v_BHTE: Tensor, scale: float, bias_B1TT: Tensor | None = None) -> Tensor:
    return F.scaled_dot_product_attention(
        q_BHTQ, k_BHTQ, v_BHTE, attn_mask=bias_B1TT, is_causal=bias_B1TT is None, scale=scale
    )


def _blocked(q_BHTQ: Tensor, k_BHTQ: Tensor, v_BHTE: Tensor, scale: float, ids_BT: Tensor | None = None) -> Tensor:
    out_BHTE: Tensor = _Blocked.apply(q_BHTQ, k_BHTQ, v_BHTE, scale, ids_BT)  # type: ignore[no-untyped-call]
    return out_BHTE


class _Blocked(torch.autograd.Function):
    """Forward by blocks of queries; backward by blocks of keys, recomputing the weights from the log-sum-exp
    (arXiv:2205.14135, appendix B, with blocks of the size of a matmul)."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float, ids: Tensor | None) -> Tensor:
        # Concatenate results at the end: for writes into slices of one tensor, the compiler nests a branch per block.
        outs, logsums = [], []
        for first, last in _blocks(q.shape[-2]):
            start = _first_key(ids, first)
            scores = _scores(q[..., first:last, :], k[..., start:last, :], scale)
            _mask_future(scores[..., first - start :])
            _mask_documents(scores, ids, (first, last), (start, last))
            top = scores.amax(-1, keepdim=True)
            weights = scores.sub_(top).exp_()
            total = weights.sum(-1, keepdim=True)
            outs.append(((weights.to(v.dtype) @ v[..., start:last, :]) / total).to(v.dtype))
            logsums.append(top + total.log())
        out = torch.cat(outs, -2)
        ctx.save_for_backward(q, k, v, out, torch.cat(logsums, -2), ids)
        ctx.scale = scale
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, logsum, ids = ctx.saved_tensors
        wide = logsum.dtype
        mean = (grad.to(wide) * out.to(wide)).sum(-1, keepdim=True)
        blocks = _blocks(q.shape[-2])
        partials_q: list[list[Tensor]] = [[] for _ in blocks]  # per block of queries, one from each block of keys
        grads_k, grads_v = [], []
        for number, (first, last) in enumerate(blocks):
            end = _last_query(ids, last, blocks)
            q_later, k_here, grad_later = q[..., first:end, :], k[..., first:last, :], grad[..., first:end, :]
            scores = _scores(q_later, k_here, ctx.scale).sub_(logsum[..., first:end, :])
            _mask_future(scores[..., : last - first, :])
            _mask_documents(scores, ids, (first, end), (first, last))
            weights = scores.exp_()
            grads_v.append(weights.to(v.dtype).transpose(-1, -2) @ grad_later)
            grad_weights = (grad_later @ v[..., first:last, :].transpose(-1, -2)).to(wide)
            grad_scores = grad_weights.sub_(mean[..., first:end, :]).mul_(weights).mul_(ctx.scale).to(q.dtype)
            grads_k.append(grad_scores.transpose(-1, -2) @ q_later)
            partials = (grad_scores @ k_here).split(last - first, -2)
            for block_partials, partial in zip(partials_q[number:], partials, strict=False):  # as far as ``end``
                block_partials.append(partial.to(wide))
        grad_q = torch.cat([sum(partials[1:], partials[0]) for partials in partials_q], -2)
        return grad_q.to(q.dtype), torch.cat(grads_k, -2), torch.cat(grads_v, -2), None, None


def _blocks(tokens: int) -> list[tuple[int, int]]:
    size = max(BLOCK, -(-tokens // MAX_BLOCKS))
    return [(first, min(first + size, tokens)) for first in range(0, tokens, size)]


def _scores(q_BHSQ: Tensor, k_BHSQ: Tensor, scale: float) -> Tensor:
    """Return the scaled scores in float32 or wider, so that their sums and exponentials are not rounded to bf16."""
    scores_BHSS = q_BHSQ @ k_BHSQ.transpose(-1, -2)
    return scores_BHSS.to(torch.promote_types(scores_BHSS.dtype, torch.float32)) * scale


def _mask_future(scores_BHSS: Tensor) -> None:
    """Mask the scores of keys after their query, in a square on the diagonal."""
    size = scores_BHSS.shape[-1]
    future_SS = torch.ones(size, size, dtype=torch.bool, device=scores_BHSS.device).triu_(1)
    scores_BHSS.masked_fill_(future_SS, float("-inf"))


def _mask_documents(
    scores_BHSS: Tensor, ids_BT: Tensor | None, queries: tuple[int, int], keys: tuple[int, int]
) -> None:
    """Mask the scores of keys of another document than their query's; ``queries`` and ``keys`` are ranges of tokens."""
    if ids_BT is not None:
        ids_B1S1, ids_B11S = ids_BT[:, None, slice(*queries), None], ids_BT[:, None, None, slice(*keys)]
        scores_BHSS.masked_fill_(ids_B1S1 != ids_B11S, float("-inf"))


def _first_key(ids_BT: Tensor | None, query: int) -> int:
    """Return the first token that a query from ``query`` on attends to, in any sequence."""
    if ids_BT is None or torch.compiler.is_compiling():
        return 0
    return int((ids_BT < ids_BT[:, query, None]).sum(-1).min())


def _last_query(ids_BT: Tensor | None, keys: int, blocks: list[tuple[int, int]]) -> int:
    """Return the end of the last block with a query that attends to one of the first ``keys`` tokens."""
    if ids_BT is None or torch.compiler.is_compiling():
        return blocks[-1][1]
    tokens = int((ids_BT <= ids_BT[:, keys - 1, None]).sum(-1).max())
    return next(last for _, last in blocks if last >= tokens)


_ATTENTIONS: dict[str, Attention] = {"sdpa": _sdpa, "blocked": _blocked}
