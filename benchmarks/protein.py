"""Meta-training steps per second of the site-token model, beside a plain PyTorch version in the same run.

    python benchmarks/protein.py [--steps 200] [--out protein.json]

Both train on the same made-up proteins: 4 tasks a step, 112 variants each, 0 to 64 of them labelled, AdamW with a
clipped norm. The PyTorch version is written as one would write it: batched over the four tasks, eager.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from fledge.data.assays import Assay
from fledge.data.mutations import all_singles
from fledge.data.residues import ALPHABET
from fledge.run.launch import prepare

LENGTH = 64


def proteins(n: int) -> list[Assay]:
    """Proteins of 64 residues whose mutations have additive effects."""
    rng = np.random.default_rng(0)
    found = []
    for i in range(n):
        wild = "".join(rng.choice(list(ALPHABET), LENGTH))
        variants = all_singles(wild)
        scores = rng.normal(size=LENGTH)[variants.sites[:, 0]] + rng.normal(size=20)[variants.residues[:, 0]]
        found.append(Assay(f"p{i}", wild, variants, scores))
    return found


def ours(assays: list[Assay], n_steps: int) -> tuple[float, float]:
    """Steps per second after compilation, and seconds to compile."""
    import jax

    from fledge.protein.pretrain import PretrainSettings, begin, chunk_plan, make_chunk
    from fledge.protein.tasks import task_arrays

    settings = PretrainSettings(n_steps=n_steps, chunk=25, multi_every=0)
    arrays, state, chunk = (task_arrays(assays),), begin(0, settings), make_chunk(settings)
    counts = [np.asarray(arrays[0].counts)]
    started = time.perf_counter()
    state, loss = chunk(state, arrays, chunk_plan(counts, 0, settings, 0))
    jax.block_until_ready(loss)
    first = time.perf_counter() - started
    started = time.perf_counter()
    for number in range(1, n_steps // settings.chunk):
        state, loss = chunk(state, arrays, chunk_plan(counts, number, settings, 0))
    jax.block_until_ready(loss)
    rate = (n_steps - settings.chunk) / (time.perf_counter() - started)
    return rate, first - settings.chunk / rate


def peer(assays: list[Assay], n_steps: int) -> float:
    """Steps per second of a plain PyTorch version."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    torch.set_num_threads(1)  # at this size two threads wait for each other

    class Block(nn.Module):
        def __init__(self, d: int = 64, heads: int = 4) -> None:
            super().__init__()
            self.heads = heads
            self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
            self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
            self.up, self.down = nn.Linear(d, 2 * d), nn.Linear(2 * d, d)
            self.bias = nn.Parameter(torch.randn(heads, 4) * 0.5)
            self.mutants = nn.Parameter(torch.zeros(heads, 20, 20))

        def forward(self, u: Any, features: Any, gained: Any) -> Any:
            b, n, d = u.shape
            q, k, v = self.qkv(self.norm1(u)).view(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            extra = torch.einsum("bra,hac,bsc->bhrs", gained, self.mutants, gained)
            bias = torch.einsum("hf,bfrs->bhrs", self.bias, features) + extra
            o = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
            u = u + self.out(o.transpose(1, 2).reshape(b, n, d))
            return u + self.down(F.gelu(self.up(self.norm2(u))))

    class Model(nn.Module):
        def __init__(self, d: int = 64) -> None:
            super().__init__()
            self.residue, self.mutant, self.wild = nn.Embedding(20, d), nn.Embedding(20, 32), nn.Embedding(20, 32)
            self.conv = nn.ModuleList([nn.Conv1d(d, d, 9, padding=4) for _ in range(2)])
            self.token = nn.Sequential(nn.Linear(2 * d, d), nn.GELU(), nn.Linear(d, d))
            self.label = nn.Linear(2, d)
            self.blocks = nn.ModuleList([Block(), Block()])
            self.norm, self.additive = nn.LayerNorm(d), nn.Linear(d, 1, bias=False)
            self.head = nn.Sequential(nn.Linear(2 * d, d), nn.GELU(), nn.Linear(d, 1))

        def forward(self, wild: Any, sites: Any, residues: Any, y: Any, known: Any) -> Any:
            h = self.residue(wild).transpose(1, 2)
            for conv in self.conv:
                h = h + F.gelu(conv(h))
            h = F.dropout(h.transpose(1, 2), 0.3)
            lost = wild.gather(1, sites)
            at = h.gather(1, sites[..., None].expand(-1, -1, h.shape[-1]))
            z = self.token(torch.cat([at, self.mutant(residues), self.wild(lost)], -1))
            u = z + self.label(torch.stack([torch.where(known, y, torch.zeros(())), (~known).float()], -1))
            gap = (sites[:, :, None] - sites[:, None, :]).abs().float()
            pair = [gap == 0, residues[:, :, None] == residues[:, None], lost[:, :, None] == lost[:, None]]
            features = torch.stack([*(p.float() for p in pair), torch.exp(-gap / 3)], 1)
            gained = F.one_hot(residues, 20).float()
            for block in self.blocks:
                u = block(u, features, gained)
            return (self.additive(z) + self.head(torch.cat([self.norm(u), z], -1)))[..., 0]

    model = Model()
    decay = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decay, "weight_decay": 5e-3}, {"params": rest, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=2e-3)
    codes = torch.tensor(np.array([[ALPHABET.index(x) for x in a.wild_type] for a in assays]))
    sites = torch.tensor(np.stack([a.variants.sites[:, 0] for a in assays])).long()
    residues = torch.tensor(np.stack([a.variants.residues[:, 0] for a in assays])).long()
    scores = torch.tensor(np.stack([a.scores for a in assays])).float()
    rng = np.random.default_rng(0)

    def step() -> None:
        tasks = torch.tensor(rng.permutation(len(assays))[:4])
        rows = torch.stack([torch.tensor(rng.permutation(sites.shape[1])[:112]) for _ in range(4)])
        y = scores[tasks[:, None], rows]
        shots = torch.tensor(rng.choice([0, 0, 8, 16, 32, 64, 64, 64], 4))
        known = torch.arange(112) < shots[:, None]
        n = known.sum(1, keepdim=True).clamp(min=1)
        mean = (y * known).sum(1, keepdim=True) / n
        spread = (((y - mean) ** 2 * known).sum(1, keepdim=True) / n).sqrt().clamp(min=1e-6)
        v = model(codes[tasks], sites[tasks[:, None], rows], residues[tasks[:, None], rows], (y - mean) / spread, known)
        asked = ~known[:, :, None] & ~known[:, None] & (y[:, :, None] > y[:, None])
        pairs = F.softplus(v[:, None] - v[:, :, None])
        loss = ((pairs * asked).sum((1, 2)) / asked.sum((1, 2)).clamp(min=1)).mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()

    for _ in range(5):
        step()
    started = time.perf_counter()
    for _ in range(n_steps):
        step()
    return n_steps / (time.perf_counter() - started)


def main(arguments: list[str]) -> int:
    """Measure both and print one line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    prepare()
    assays = proteins(24)
    rate, compile_s = ours(assays, options.steps)
    print(f"Fledge   {rate:6.1f} steps/s, {compile_s:.1f} s to compile", flush=True)
    found: dict[str, float | None] = {"steps_per_s": rate, "compile_s": compile_s, "peer_steps_per_s": None}
    try:
        found["peer_steps_per_s"] = peer(assays, options.steps)
    except ImportError:
        print("PyTorch is not installed: pip install 'fledge[bench]' measures it too.", file=sys.stderr)
    if found["peer_steps_per_s"]:
        print(f"PyTorch  {found['peer_steps_per_s']:6.1f} steps/s, ratio {rate / found['peer_steps_per_s']:.1f}")
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
