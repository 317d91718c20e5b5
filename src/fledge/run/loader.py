"""Runs an exported agent with `pip install jax flatbuffers`: `from load import load; load("agent.zip")`."""

import json
import zipfile

import jax.export


def load(path):
    """What agent.json says, and the functions begin(), greedy(inputs) and sampled(inputs) by name."""
    with zipfile.ZipFile(path) as file:
        about = json.loads(file.read("agent.json"))
        parts = {name: jax.export.deserialize(bytearray(file.read(f"{name}.stablehlo"))) for name in about["functions"]}
    return about, {name: part.call for name, part in parts.items()}
