import pytest
from PIL import Image

from espnetv2.data import image_folder, imagenet
from espnetv2.errors import UserError


def _tree(root, *classes):
    for name in classes:
        (root / "val" / name / "deep").mkdir(parents=True)
        Image.new("RGB", (6, 5)).save(root / "val" / name / "one.png")
        Image.new("RGB", (6, 5)).save(root / "val" / name / "deep" / "two.webp")
        (root / "val" / name / "notes.txt").touch()
    return root


def test_classes_are_the_sorted_folders(tmp_path):
    data = image_folder.read(_tree(tmp_path, "dog", "cat"), "val")
    assert data.classes == ("cat", "dog")
    assert [data[i].target for i in range(len(data))] == [0, 0, 1, 1]


def test_targets_are_the_networks_indices_when_its_classes_are_given(tmp_path):
    classes = ("bird", "dog", "Alley_Cat")
    data = image_folder.read(_tree(tmp_path, "dog", "alley cat"), "val", classes=classes)
    assert data.classes == classes
    assert [data[i].target for i in range(len(data))] == [2, 2, 1, 1]


def test_a_folder_that_is_no_class_is_named(tmp_path):
    with pytest.raises(UserError, match="folder 'cow' is none of the network's 2 classes"):
        image_folder.read(_tree(tmp_path, "cow"), "val", classes=("cat", "dog"))


def test_a_name_that_two_classes_share_decides_nothing():
    with pytest.raises(UserError, match="'crane'"):
        image_folder.match_classes(["crane"], ["crane", "dog", "crane"])


def test_an_empty_class_folder_is_named(tmp_path):
    (_tree(tmp_path, "dog") / "val" / "cat").mkdir()
    with pytest.raises(UserError, match=r"no pictures in .*cat"):
        image_folder.read(tmp_path, "val")


def test_a_folder_without_class_folders_is_an_error(tmp_path):
    (tmp_path / "val").mkdir()
    with pytest.raises(UserError, match="no class folders"):
        image_folder.read(tmp_path, "val")


def test_imagenettes_ids_point_at_the_right_names():
    names = imagenet.classes()
    found = image_folder.match_classes(["n03417042", "n01440764", "n02102040"], names)
    assert [names[i] for i in found] == ["garbage truck", "tench", "English springer"]


def test_imagenettes_table_agrees_with_timms():
    info = pytest.importorskip("timm.data").ImageNetInfo("imagenet-1k")
    order = {name: index for index, name in enumerate(info.label_names())}
    assert {name: order[name] for name in imagenet.IMAGENETTE} == imagenet.IMAGENETTE


def test_other_subsets_are_found_through_timm():
    pytest.importorskip("timm")
    names = imagenet.classes()
    assert names[imagenet.indices(["n02086240"])[0]] == "Shih-Tzu"
    with pytest.raises(UserError, match="'n00000001'"):
        image_folder.match_classes(["n00000001"], names)


def test_a_complete_set_follows_the_order_of_ids():
    ids = [f"n{number:08d}" for number in range(2000, 1000, -1)]
    assert imagenet.indices(ids)[:2] == [999, 998]


@pytest.mark.data
def test_real_imagenette_is_read_with_imagenets_indices(shared):
    root = shared / "data/imagenette128"
    data = image_folder.read(root, "val", classes=imagenet.classes())
    assert len(data) == 3925
    assert (data[0].target, data[3924].target) == (0, 701)
