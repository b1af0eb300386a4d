import pytest

import tiny_sets
from espnetv2.data.csv_table import CsvTable
from espnetv2.errors import UserError


def test_one_file_a_split(tmp_path):
    tiny_sets.picture(tmp_path / "a/1.png")
    root = tiny_sets.table(tmp_path, [("a/1.png", "dog"), ("a/1.png", "cat")])
    table = CsvTable(root, "train")
    assert (table.classes, [table[i].target for i in (0, 1)]) == (("cat", "dog"), [1, 0])


def test_one_file_with_a_split_column(tmp_path):
    rows = [("1.png", "dog", "train"), ("2.png", "cat", "val"), ("3.png", "cat", "val")]
    root = tiny_sets.table(tmp_path, rows, name="all.csv", heads=("File", "Label", "Split"))
    assert (len(CsvTable(root, "train")), len(CsvTable(root, "val"))) == (1, 2)


def test_several_labels_or_none(tmp_path):
    tiny_sets.picture(tmp_path / "1.png")
    root = tiny_sets.table(tmp_path, [("1.png", "dog| cat"), ("1.png", "")])
    table = CsvTable(root, "train", ("bird", "cat", "dog"), multilabel=True)
    assert [table[i].target.tolist() for i in (0, 1)] == [[0, 1, 1], [0, 0, 0]]
    assert table.counts(0, 3).tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("rows", "heads", "split", "message"),
    [
        ([("1.png", "a|b")], ("path", "label"), "train", "line 2 of .* has 2 labels"),
        ([("1.png", "")], ("path", "label"), "train", "line 2 of .* has 0 labels"),
        ([], ("path", "label"), "train", "has no rows"),
        ([("1.png", "a")], ("photo", "label"), "train", r"no column 'path' \(it has photo, label"),
        ([("1.png", "a")], ("path", "label"), "val", "no column 'split'; add it, or write val.csv"),
        ([("1.png", "a", "x")], ("path", "label", "split"), "val", r"no row .* it has \['x'\]"),
    ],
)
def test_a_faulty_table_is_one_line(tmp_path, rows, heads, split, message):
    root = tiny_sets.table(tmp_path, rows, heads=heads)
    with pytest.raises(UserError, match=message):
        CsvTable(root, split)


def test_no_table_names_what_is_there(tmp_path):
    with pytest.raises(UserError, match="which has no CSV file"):
        CsvTable(tmp_path, "train")


def test_a_label_that_is_no_class_is_an_error(tmp_path):
    root = tiny_sets.table(tmp_path, [("1.png", "eel")])
    with pytest.raises(UserError, match=r"label 'eel' in .* is none of the 2 classes"):
        CsvTable(root, "train", ("cat", "dog"))
