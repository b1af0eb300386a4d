import pytest
import torch

from espnetv2.data.corpus import (
    SHORTEST,
    batchify,
    read_corpus,
    regular_segments,
    segments,
)
from espnetv2.errors import UserError

TEXTS = {"train": "the cat sat\nthe dog\n", "valid": "a dog sat\n\n", "test": "the cat"}


def write(folder, names="{}.txt", texts=TEXTS):
    for part, text in texts.items():
        (folder / names.format(part)).write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize("names", ["{}.txt", "ptb.{}.txt", "wiki.{}.tokens"])
def test_words_are_numbered_by_first_appearance_and_lines_end(tmp_path, names):
    corpus = read_corpus(write(tmp_path, names))
    assert corpus.words == ("the", "cat", "sat", "<eos>", "dog", "<unk>")
    assert corpus.train.tolist() == [0, 1, 2, 3, 0, 4, 3]


def test_unknown_words_and_empty_lines_of_other_texts(tmp_path):
    corpus = read_corpus(write(tmp_path))
    assert corpus.valid.tolist() == [5, 4, 2, 3, 3]  # "a" is unknown; an empty line has its end
    assert corpus.test.tolist() == [0, 1, 3]


def test_unk_of_the_training_text_keeps_its_place(tmp_path):
    corpus = read_corpus(write(tmp_path, texts=TEXTS | {"train": "a <unk> b\n"}))
    assert corpus.words == ("a", "<unk>", "b", "<eos>")


def test_val_is_as_good_as_valid(tmp_path):
    write(tmp_path)
    (tmp_path / "valid.txt").rename(tmp_path / "val.txt")
    assert len(read_corpus(tmp_path).valid) == 5


@pytest.mark.data
def test_penn_treebank_has_the_published_counts(shared):
    corpus = read_corpus(shared / "data/ptb")
    counts = [len(text) for text in (corpus.train, corpus.valid, corpus.test)]
    assert counts == [929_589, 73_760, 82_430]
    assert len(corpus.words) == len(set(corpus.words)) == 10_000


def test_missing_files_are_named(tmp_path):
    write(tmp_path, "ptb.{}.txt")
    (tmp_path / "ptb.test.txt").unlink()
    with pytest.raises(UserError, match=r"lacks ptb\.test\.txt"):
        read_corpus(tmp_path)


def test_an_empty_folder_says_what_it_lacks(tmp_path):
    with pytest.raises(UserError, match=r"lacks train\.txt, valid\.txt, test\.txt"):
        read_corpus(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        read_corpus(tmp_path / "absent")


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_a_file_without_words_is_named(tmp_path, text):
    with pytest.raises(UserError, match=r"valid\.txt: holds no words"):
        read_corpus(write(tmp_path, texts=TEXTS | {"valid": text}))


def test_a_file_that_is_not_text_is_named(tmp_path):
    write(tmp_path)
    (tmp_path / "test.txt").write_bytes(b"ab \xff\xfe")
    with pytest.raises(UserError, match=r"test\.txt: not UTF-8 at byte 3"):
        read_corpus(tmp_path)


def test_columns_are_consecutive_pieces_of_the_text():
    rows = batchify(torch.arange(11), 3)
    assert rows.tolist() == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]
    assert rows.is_contiguous()


def test_a_text_too_short_for_the_batch_is_refused():
    with pytest.raises(UserError, match="5 words is too short for a batch of 3"):
        batchify(torch.arange(5), 3)


@pytest.mark.parametrize("rows", [2, 5, 6, 11, 75, 76, 300, 1237])
def test_segments_cover_every_row_once_and_none_is_short(rows):
    for epoch in range(20):
        cuts = segments(rows, bptt=70, seed=1, epoch=epoch)
        starts = [start for start, _ in cuts]
        ends = [start + length for start, length in cuts]
        assert starts == [0, *ends[:-1]]
        assert ends[-1] == rows - 1
        assert min(length for _, length in cuts) >= min(SHORTEST, rows - 1)


def test_lengths_follow_the_recipe():
    lengths = torch.tensor(
        [length for _, length in segments(1_000_000, bptt=70, seed=0, epoch=0)[:-1]]
    ).double()
    long = lengths[lengths > 52.5]
    short = lengths[lengths <= 52.5]
    assert abs(len(long) / len(lengths) - 0.95) < 0.01
    assert abs(long.mean() - 69.5) < 0.3  # cut down to a whole number
    assert abs(short.mean() - 34.5) < 1
    assert abs(long.std() - 5) < 0.3


def test_segments_are_a_function_of_seed_and_epoch():
    def draw(seed, epoch):
        return segments(5000, bptt=70, seed=seed, epoch=epoch)

    before = draw(3, 4)
    torch.rand(7)  # the global generator has no part in it
    assert draw(3, 4) == before
    assert len({tuple(draw(*at)) for at in ((3, 4), (3, 5), (4, 4), (0, 0), (1, 0))}) == 5


def test_regular_segments_include_the_last_partial_one():
    assert regular_segments(8, bptt=3) == [(0, 3), (3, 3), (6, 1)]
    assert regular_segments(7, bptt=3) == [(0, 3), (3, 3)]
