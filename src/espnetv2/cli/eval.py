"""`espnetv2 eval`: judge a network on a data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from espnetv2.cli.notice import say_engine
from espnetv2.cli.size import parse_size
from espnetv2.errors import UserError, unknown

if TYPE_CHECKING:
    from rich.console import Console

    from espnetv2.predict.predictor import Predictor
    from espnetv2.tasks.scores import Scores


def eval_(
    model: Annotated[str, typer.Argument(help="A published name, a weights file or an artefact.")],
    dataset: Annotated[
        str,
        typer.Option(
            help="camvid, cityscapes, voc, masks, imagefolder, csv, csv-multilabel, "
            "coco-multilabel, voc-boxes, coco-boxes or text."
        ),
    ],
    data: Annotated[Path, typer.Option(help="Folder of the data set; see docs/datasets.md.")],
    split: Annotated[str, typer.Option(help="train, val, test, ...")] = "val",
    protocol: Annotated[
        list[str] | None,
        typer.Option(help='How to score; may be repeated; "all" for every one that fits.'),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first pictures, or segments of 70 words.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures per forward pass.")] = 1,
    size: Annotated[
        str | None, typer.Option(metavar="HxW", help="Input size; the weights' own by default.")
    ] = None,
    squashed: Annotated[
        bool, typer.Option(help="voc: pictures were resized to one size, masks were not.")
    ] = False,
    submit: Annotated[
        Path | None, typer.Option(help="cityscapes: write label maps for its server here.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.")] = None,
    engine: Annotated[
        str | None,
        typer.Option(help="torch, compile, onnxruntime, openvino, ...; see docs/deploy."),
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="Of the engine: fp32, bf16 or fp16.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps.")] = "cpu",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document instead of tables.")
    ] = False,
) -> None:
    """Judge a network on a data set, under named protocols; all share one forward pass.

    Under torchrun the processes share the pictures, and each is judged once.
    """
    from espnetv2.tasks.protocols import DEFAULTS, choose

    if dataset not in DEFAULTS:
        raise unknown("data set", dataset, DEFAULTS)
    protocols = choose(protocol or [], dataset=dataset)
    shape = None if size is None else parse_size(size)
    for option, value, only in (
        ("--squashed", squashed, "voc"),
        ("--submit", submit, "cityscapes"),
    ):
        if value and dataset != only:
            raise UserError(f"{option} is for --dataset {only}, not {dataset}; leave it out")

    import torch
    from rich.console import Console

    from espnetv2.cli.score_tables import show
    from espnetv2.tasks import ranks

    if threads is not None:
        torch.set_num_threads(threads)
    with ranks.joined() as local:
        rank, world = ranks.place()
        console = Console(stderr=as_json, quiet=rank > 0)
        where = f"cuda:{local}" if device == "cuda" and world > 1 else device
        if dataset == "text":
            name, scores = _judge_text(
                model, data, split, batch_size=batch_size, limit=limit, device=where
            )
        else:
            from espnetv2.data.evaluation_sets import open_split
            from espnetv2.predict.predictor import load

            say_engine(engine, where)
            predictor = load(
                model, device=where, size=shape, engine=engine, precision=precision, threads=threads
            )
            name = predictor.name
            _check_task(predictor.task, dataset)
            scores = _judge_pictures(
                predictor,
                open_split(dataset, data, split, predictor.classes, squashed=squashed),
                protocols,
                console,
                batch_size=batch_size,
                limit=limit,
                submit=submit,
            )
    if rank > 0:
        return
    if as_json:
        head = {"model": model, "network": name, "dataset": dataset, "split": split}
        print(json.dumps({**head, "scores": [score.to_json() for score in scores]}))
    else:
        show(console, scores)


def _judge_pictures(
    predictor: Predictor,
    samples: Any,
    protocols: tuple[str, ...],
    console: Console,
    *,
    batch_size: int,
    limit: int | None,
    submit: Path | None,
) -> list[Scores]:
    from espnetv2.cli.score_tables import Progress
    from espnetv2.tasks.evaluate import evaluate, predict_for
    from espnetv2.tasks.protocols import PROTOCOLS, SegmentationProtocol
    from espnetv2.tasks.submission import CityscapesSubmission

    writer = None
    first = PROTOCOLS[protocols[0]]
    if submit is not None and isinstance(first, SegmentationProtocol):
        writer = CityscapesSubmission(submit, enlarge=first.enlarge)
    with Progress(console) as progress:
        scores = evaluate(
            predict_for(
                predictor.model,
                predictor.task,
                predictor.preprocessing,
                predictor.classes,
                protocol=protocols[0],
                device=predictor.device,
            ),
            samples,
            protocols,
            batch_size=batch_size,
            limit=limit,
            progress=progress.update,
            observe=writer,
        )
    return list(scores.values())


def _judge_text(
    model: str, root: Path, split: str, *, batch_size: int, limit: int | None, device: str
) -> tuple[str, list[Scores]]:
    import time

    from espnetv2.tasks.language import evaluate_text
    from espnetv2.tasks.scores import Scores
    from espnetv2.weights.load import load_network

    loaded = load_network(model)
    _check_task(loaded.task, "text")
    try:
        network: Any = loaded.network.to(device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device {device!r} is not available here; use cpu") from error
    tokens = _tokens(root, split, network, loaded.classes)
    start = time.perf_counter()
    found = evaluate_text(network, tokens, batch=batch_size, limit=limit)
    seconds = time.perf_counter() - start
    metrics = {"perplexity": found.perplexity, "loss": found.loss}
    return loaded.name, [Scores("perplexity", metrics, {}, found.words, seconds, unit="words")]


def _tokens(root: Path, split: str, network: Any, words: tuple[str, ...]) -> Any:
    """A part of the corpus in the numbers of the network's words."""
    from espnetv2.data.corpus import UNKNOWN, encode, read_corpus

    corpus = read_corpus(root)
    parts = {"train": corpus.train, "val": corpus.valid, "valid": corpus.valid, "test": corpus.test}
    if split not in parts:
        raise unknown("split", split, parts)
    if UNKNOWN in words:  # the file says what it knows
        numbers = {word: number for number, word in enumerate(words)}
        return encode((corpus.words[number] for number in parts[split].tolist()), numbers)
    known = len(network.decoder_bias)
    if known != len(corpus.words):
        raise UserError(
            f"{root} has {len(corpus.words)} words but the network knows {known}; "
            "give the text that it was trained on"
        )
    return parts[split]


def _check_task(task: str, dataset: str) -> None:
    from espnetv2.tasks.protocols import DEFAULTS, PROTOCOLS

    needed = PROTOCOLS[DEFAULTS[dataset][0]].task
    if task != needed:
        raise UserError(f"{dataset} is for {needed}, but the network does {task}; choose another")
