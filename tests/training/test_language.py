import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from close import FLOAT32, assert_close
from espnetv2.data.corpus import batchify, read_corpus, regular_segments, segments
from espnetv2.errors import UserError
from espnetv2.models.catalog import entry
from espnetv2.models.eru_lm import ERULanguageModel
from espnetv2.tasks.language import evaluate_text, training_loss
from espnetv2.training import language_fit
from espnetv2.training.fit import train
from espnetv2.training.language import LanguageModule, SegmentLoader, triggered
from espnetv2.training.language_fit import fit_language
from espnetv2.training.recipe import load_recipe
from espnetv2.training.trainer import Run
from espnetv2.weights.files import Header, write_safetensors
from training.language_run import tiny

PROGRAM = Path(__file__).with_name("language_run.py")


@pytest.fixture(scope="session")
def corpus_folder(tmp_path_factory):
    """A text in which words follow words by rule, with some noise."""
    folder = tmp_path_factory.mktemp("text")
    draw = random.Random(0)
    for part, lines in (("train", 200), ("valid", 60), ("test", 20)):
        text = []
        for _ in range(lines):
            word, line = draw.randrange(12), []
            for _ in range(draw.randint(3, 9)):
                line.append(f"w{word}")
                word = (3 * word + draw.randrange(2)) % 12
            text.append(" ".join(line))
        (folder / f"{part}.txt").write_text("\n".join(text) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def finished(corpus_folder, tmp_path_factory):
    """A run that nothing interrupted."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    torch.set_num_threads(1)
    return out, fit_language(tiny(corpus_folder), out=out, device="cpu", checkpoint_steps=3)


def load(path):
    return torch.load(path, map_location="cpu", weights_only=True)


def rows_of(out):
    """The table without its clock."""
    rows = load(out / "last.ckpt")["language"]["rows"]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def assert_same_run(out, expected):
    """Bit for bit: weights, optimiser, state, averaged weights and table."""
    ours, theirs = load(out / "last.ckpt"), load(expected / "last.ckpt")
    for name, value in theirs["state_dict"].items():
        assert torch.equal(ours["state_dict"][name], value), name
    one, other = (run["optimizer_states"][0]["state"] for run in (ours, theirs))
    assert one.keys() == other.keys()
    for key in other:
        for name, value in other[key].items():
            assert torch.equal(torch.as_tensor(one[key][name]), torch.as_tensor(value)), name
    assert rows_of(out) == rows_of(expected)
    best, wanted = load(out / "best.ckpt"), load(expected / "best.ckpt")
    assert best["epoch"] == wanted["epoch"]
    for name, value in wanted["state_dict"].items():
        assert torch.equal(best["state_dict"][name], value), name


def program(*arguments):
    source = str(PROGRAM.parents[2] / "src")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": source}
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), *map(str, arguments)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(*arguments):
    process = program(*arguments)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors


@pytest.mark.slow
@pytest.mark.parametrize("number", range(2))
def test_killed_at_a_random_moment_and_resumed_ends_with_the_same_bits(
    number, corpus_folder, finished, tmp_path
):
    out = tmp_path / "run"
    process = program(corpus_folder, out, "--pace", 0.05)
    until = time.monotonic() + 120
    while not (out / "last.ckpt").exists() and time.monotonic() < until:
        time.sleep(0.005)
    time.sleep(random.Random(time.time_ns()).uniform(0, 3))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "it ended before it was killed"
    finish(corpus_folder, out, "--resume")
    assert_same_run(out, finished[0])


@pytest.mark.slow
def test_killed_while_saving_keeps_the_previous_checkpoint(corpus_folder, finished, tmp_path):
    out = tmp_path / "run"
    process = program(corpus_folder, out, "--die-in-save", 9)
    process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL
    assert (out / "next.ckpt.part").exists()  # of which last.ckpt would have been made
    load(out / "last.ckpt")
    finish(corpus_folder, out, "--resume")
    assert_same_run(out, finished[0])


class StopError(Exception):
    pass


@pytest.mark.parametrize("segment", [(0, 0), (1, 5), (2, -1), (3, 0), (4, 5)])
def test_stopped_at_a_segment_and_resumed_ends_with_the_same_bits(
    segment, corpus_folder, finished, tmp_path, monkeypatch
):
    """The same in this process: at the first, in the middle, at an epoch's last segment."""
    out, settings = tmp_path / "run", tiny(corpus_folder)
    step = LanguageModule.training_step

    def until(module, batch, batch_idx):
        at = segment[1] % module.trainer.num_training_batches
        if (module.trainer.current_epoch, batch.number) == (segment[0], at):
            raise StopError
        return step(module, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(LanguageModule, "training_step", until)
        with pytest.raises(StopError):
            fit_language(settings, out=out, device="cpu", checkpoint_steps=3)
    torch.rand(3)  # the global generator has no part in it
    fit_language(settings, out=out, resume=True, device="cpu", checkpoint_steps=3)
    assert_same_run(out, finished[0])


def test_a_finished_run_resumed_for_more_epochs_equals_one_long_run(
    corpus_folder, finished, tmp_path
):
    out = tmp_path / "run"
    fit_language(tiny(corpus_folder, epochs=3), out=out, device="cpu", checkpoint_steps=3)
    fit_language(tiny(corpus_folder), out=out, resume=True, device="cpu", checkpoint_steps=3)
    assert_same_run(out, finished[0])


def test_a_run_learns_averages_and_leaves_its_files(finished, corpus_folder):
    out, scores = finished
    rows = rows_of(out)
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3, 4]
    assert rows[-1]["optimizer"] == "asgd", "the test needs a run in which the trigger fires"
    assert rows[0]["optimizer"] == "sgd"
    assert scores["val_perplexity"] == min(row["val_perplexity"] for row in rows)
    assert scores["val_perplexity"] < 9  # of 14 words, each followed by one of two or the end
    assert (out / "metrics.csv").read_text().count("\n") == 6
    summary = json.loads((out / "summary.json").read_text())
    assert summary["metrics"]["test_perplexity"] == scores["test_perplexity"]
    assert summary["parameters"] == scores["parameters"] > 1000
    assert not list(out.glob("*.part"))


def test_the_best_checkpoint_holds_the_weights_that_were_judged(finished, corpus_folder):
    """The averaged ones and settled norms, once averaging."""
    out, scores = finished
    best, settings = load(out / "best.ckpt"), tiny(corpus_folder)
    corpus = read_corpus(corpus_folder)
    assert tuple(best["words"]) == corpus.words
    network = ERULanguageModel(settings.layout, vocabulary=len(corpus.words))
    network.load_state_dict(best["state_dict"])
    judged = evaluate_text(network, corpus.valid, batch=settings.eval_batch, bptt=settings.bptt)
    assert abs(judged.perplexity - scores["val_perplexity"]) < 1e-6
    test = evaluate_text(network, corpus.test, batch=1)
    assert abs(test.perplexity - scores["test_perplexity"]) < 1e-4


def test_training_equals_a_bare_loop(corpus_folder, tmp_path):
    """SGD, clipped, its rate scaled, the state carried on."""
    settings = tiny(corpus_folder, epochs=1, dropout=0.0, lr=1.0)
    out = tmp_path / "run"
    fit_language(settings, out=out, limit=3, device="cpu")
    corpus = read_corpus(corpus_folder)
    network = language_fit.build_network(settings, corpus)
    rows, state = batchify(corpus.train, settings.batch), None
    for start, length in segments(len(rows), bptt=settings.bptt, seed=0, epoch=0)[:3]:
        tokens, targets = rows[start : start + length], rows[start + 1 : start + 1 + length]
        loss, _, state = training_loss(network, tokens, targets, state)
        network.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), settings.clip)
        rate = settings.lr * length / settings.bptt
        with torch.no_grad():
            for parameter in network.parameters():
                parameter -= rate * (parameter.grad + settings.weight_decay * parameter)
    trained = load(out / "last.ckpt")["state_dict"]
    for name, parameter in network.named_parameters():
        assert_close(name, trained[f"network.{name}"], parameter, FLOAT32)


@pytest.mark.parametrize("averaging", [False, True])
def test_a_step_moves_in_proportion_to_the_segments_length(corpus_folder, averaging):
    corpus, settings = read_corpus(corpus_folder), tiny(corpus_folder, weight_decay=0.0)
    module = LanguageModule(language_fit.build_network(settings, corpus), corpus, settings)
    module.averaging = averaging
    optimizer = module.configure_optimizers()
    parameter = module.network.decoder_bias
    moves = []
    for length in (20, 20, 5, 35):
        before = parameter.detach().clone()
        parameter.grad = torch.ones_like(parameter)
        module._rate = settings.lr * length / settings.bptt
        module.on_before_optimizer_step(optimizer)
        optimizer.step()
        moves.append((before - parameter.detach()).mean().item())
    assert moves == pytest.approx([20, 20, 5, 35])


@pytest.mark.parametrize(
    ("losses", "window", "expected"),
    [
        ([5], 5, False),
        ([5, 6], 0, True),
        ([5, 4, 4.5], 1, False),  # better than the only epoch outside the window
        ([4, 5, 4.5], 1, True),
        ([4, 9, 9, 9, 9, 9], 5, False),  # nothing outside the window yet
        ([4, 9, 9, 9, 9, 9, 4.1], 5, True),
        ([4, 9, 9, 9, 9, 9, 3.9], 5, False),
    ],
)
def test_the_trigger_looks_past_the_window(losses, window, expected):
    assert triggered(losses, window) == expected


def test_order_of_segments_matters_because_the_state_is_carried(corpus_folder):
    corpus, settings = read_corpus(corpus_folder), tiny(corpus_folder, dropout=0.0)
    network = language_fit.build_network(settings, corpus)
    cuts = regular_segments(len(batchify(corpus.train, 4)), bptt=20)[:-1]
    sums = []
    for order in (cuts, cuts[::-1]):
        state, total = None, 0.0
        for segment in SegmentLoader(batchify(corpus.train, 4), order):
            with torch.no_grad():
                _, entropy, state = training_loss(network, segment.tokens, segment.targets, state)
            total += entropy.item()
        sums.append(total)
    assert sums[0] != sums[1]


def test_a_loader_goes_on_where_it_stopped():
    rows = torch.arange(20).view(10, 2)
    loader = SegmentLoader(rows, [(0, 5), (5, 2), (7, 2)])
    first = next(iter(loader))
    other = SegmentLoader(rows, loader.cuts)
    other.load_state_dict(loader.state_dict())
    assert [segment.number for segment in other] == [1, 2]
    assert len(other) == 3
    assert first.targets.tolist() == rows[1:6].tolist()
    assert [segment.number for segment in other] == [0, 1, 2]  # the next pass is whole


def test_a_loss_that_is_not_finite_stops_and_names_the_segment(
    corpus_folder, tmp_path, monkeypatch
):
    out, step = tmp_path / "run", LanguageModule.optimizer_step

    def runs_away(module, epoch, batch, *args, **options):
        step(module, epoch, batch, *args, **options)
        if (epoch, batch) == (1, 3):  # these weights are saved, and known to be lost a step later
            module.network.decoder_bias.data.fill_(float("nan"))

    monkeypatch.setattr(LanguageModule, "optimizer_step", runs_away)
    with pytest.raises(UserError, match="the loss is nan at epoch 2, segment 5; lower"):
        fit_language(tiny(corpus_folder), out=out, device="cpu", checkpoint_steps=1)
    kept = load(out / "last.ckpt")["state_dict"]
    assert all(value.isfinite().all() for value in kept.values())
    assert not (out / "next.ckpt").exists()


def test_ctrl_c_saves_and_says_how_to_go_on(corpus_folder, finished, tmp_path, monkeypatch):
    out, step = tmp_path / "run", LanguageModule.training_step

    def interrupted(module, batch, batch_idx):
        if (module.trainer.current_epoch, batch.number) == (1, 4):
            os.kill(os.getpid(), signal.SIGINT)
        return step(module, batch, batch_idx)

    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(LanguageModule, "training_step", interrupted)
        with pytest.raises(UserError, match="go on with --resume"):
            fit_language(tiny(corpus_folder), out=out, device="cpu", checkpoint_steps=1000)
    assert signal.getsignal(signal.SIGINT) is before
    assert load(out / "last.ckpt")["loops"]["fit_loop"]["state_dict"]["combined_loader"] == [
        {"done": 5}
    ]
    fit_language(tiny(corpus_folder), out=out, resume=True, device="cpu", checkpoint_steps=3)
    assert_same_run(out, finished[0])


def test_a_full_disk_keeps_the_previous_checkpoint(corpus_folder, tmp_path, monkeypatch):
    import lightning.pytorch as L

    out, save, count = tmp_path / "run", L.Trainer.save_checkpoint, iter(range(100))

    def full(trainer, path):
        save(trainer, path)
        if next(count) == 2:
            os.truncate(path, 100)
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(L.Trainer, "save_checkpoint", full)
    with pytest.raises(UserError, match=r"t\.ckpt \(No space left on device\)"):
        fit_language(tiny(corpus_folder), out=out, device="cpu", checkpoint_steps=3)
    load(out / "last.ckpt")
    assert not list(out.glob("*.part"))


def test_a_limit_counts_segments_of_every_pass(corpus_folder, tmp_path):
    out = tmp_path / "run"
    settings = dataclasses.replace(tiny(corpus_folder), epochs=2)
    fit_language(settings, out=out, limit=2, device="cpu")
    assert load(out / "last.ckpt")["global_step"] == 4


def test_folders_are_not_mixed_up(corpus_folder, tmp_path):
    out, settings = tmp_path / "run", tiny(corpus_folder, epochs=1)
    fit_language(settings, out=out, resume=True, limit=1, device="cpu")  # nothing yet: begins
    with pytest.raises(UserError, match="holds a run already"):
        fit_language(settings, out=out, device="cpu")
    other = dataclasses.replace(settings, lr=6.0)
    with pytest.raises(UserError, match=r"begun with lr=20\.0, not 6\.0"):
        fit_language(other, out=out, resume=True, device="cpu")


def test_a_folder_that_cannot_be_made_is_told(corpus_folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        fit_language(tiny(corpus_folder), out=tmp_path / "file" / "run", device="cpu")
    unknown = tiny(corpus_folder, layout=None, preset="7M")
    with pytest.raises(UserError, match="unknown ERU preset"):
        fit_language(unknown, out=tmp_path / "run", device="cpu")


def test_short_precision_trains_too(corpus_folder, tmp_path):
    settings = tiny(corpus_folder, epochs=2, lr=10.0, precision="bf16-mixed")
    scores = fit_language(settings, out=tmp_path / "run", device="cpu")
    assert scores["val_perplexity"] < 12


def test_averaged_weights_are_judged_with_norms_of_their_own(corpus_folder, finished, tmp_path):
    out = tmp_path / "run"
    scores = fit_language(tiny(corpus_folder, norm_segments=0), out=out, device="cpu")
    assert rows_of(out)[:3] == rows_of(finished[0])[:3]  # not yet averaging
    assert scores["val_perplexity"] > finished[1]["val_perplexity"] + 0.3


@pytest.fixture(scope="session")
def small(corpus_folder, tmp_path_factory):
    """A weights file of the smaller network of the catalog, on the corpus."""
    words = read_corpus(corpus_folder).words
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    options = {"num_classes": len(words)}
    header = Header("eru_lm_7m", options, words, None, {})
    write_safetensors(entry("eru_lm_7m").build(**options).state_dict(), header, path)
    return path


def test_a_run_starts_from_given_weights(corpus_folder, small, tmp_path, monkeypatch):
    started, fit = [], language_fit._trainer

    def look(settings, watchers, **options):
        trainer = fit(settings, watchers, **options)
        monkeypatch.setattr(trainer, "fit", lambda module, **more: started.append(module))
        return trainer

    monkeypatch.setattr(language_fit, "_trainer", look)
    monkeypatch.setattr(language_fit, "_judge", lambda *words, **more: 1 / 0)
    recipe = load_recipe("ptb", weights=str(small), changes=["data.batch_size=4"])
    with pytest.raises(ZeroDivisionError):
        train(recipe, Run(data=corpus_folder, out=tmp_path / "run", device="cpu"))
    state, given = started[0].network.state_dict(), load_file(small)
    assert [name for name in given if not torch.equal(state[name], given[name])] == []
    assert state.keys() == given.keys()


@pytest.mark.parametrize(
    ("weights", "preset", "words"),
    [
        ("none.safetensors", "7m", "none.safetensors is not a file"),
        ("espnetv2_s0_5.imagenette", "7m", "is of espnetv2_s0_5, not eru_lm_7m"),
        (None, "15m", "is of eru_lm_7m, not eru_lm_15m"),
    ],
)
def test_weights_that_do_not_fit_are_one_line(
    corpus_folder, small, tmp_path, weights, preset, words
):
    settings = tiny(corpus_folder, preset=preset, layout=None, weights=weights or str(small))
    with pytest.raises(UserError, match=words) as error:
        fit_language(settings, out=tmp_path / "run", device="cpu")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_weights_of_other_words_are_told(small, tmp_path):
    for part in ("train", "valid", "test"):
        (tmp_path / f"{part}.txt").write_text("a b c d e f\n" * 20, encoding="utf-8")
    settings = tiny(tmp_path, preset="7m", layout=None, weights=str(small))
    with pytest.raises(UserError, match="words, other ones than the 8 of"):
        fit_language(settings, out=tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("option", "words"), [({"devices": 2}, "--devices 2"), ({"skip_bad": True}, "--skip-bad")]
)
def test_what_only_pictures_have_is_refused(corpus_folder, tmp_path, option, words):
    place = Run(data=corpus_folder, out=tmp_path / "run", device="cpu", **option)
    with pytest.raises(UserError, match=f"{words}: a language model trains in one process"):
        train(load_recipe("ptb"), place)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["last.ckpt", "settings.json"])
def test_a_damaged_file_is_named(corpus_folder, finished, tmp_path, name):
    out = tmp_path / "run"
    shutil.copytree(finished[0], out)
    whole = (out / name).read_bytes()
    (out / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=f"run/{name} is damaged") as error:
        fit_language(tiny(corpus_folder), out=out, resume=True, device="cpu")
    assert "\n" not in str(error.value)
