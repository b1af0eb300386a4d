"""Whole files from official to ours and back."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from espnetv2.errors import UserError
from espnetv2.weights import keys
from espnetv2.weights.files import Header, read_safetensors, remove, write_safetensors
from espnetv2.weights.load import check_fit, read_converted


def to_safetensors(source: Path, target: Path) -> Header:
    """Convert an official file; every tensor is checked against the network it belongs to.

    Raises:
        UserError: The file is damaged, unsafe, or of no known network.
    """
    state, header = read_converted(source)
    check_fit(state, header, source=str(source))
    write_safetensors(state, header, target)
    return header


def to_official_file(source: Path, target: Path) -> Header:
    """Write a file of ours under official names, loadable by the official code.

    Raises:
        UserError: The network has no official code.
    """
    state, header = read_safetensors(source)
    family = keys.family_of(header.model)
    if family is None:
        raise UserError(f"{header.model} has no official code, so no official names")
    check_fit(state, header, source=str(source))
    scratch = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        torch.save(keys.to_official(state, family), scratch)
        scratch.replace(target)
    except (OSError, RuntimeError) as error:
        remove(scratch)
        raise UserError(f"cannot write {target} ({error}); choose a writable place") from error
    return header
