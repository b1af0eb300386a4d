import numpy as np
import pytest
from PIL import Image, ImageFont

from espnetv2.tasks import draw

PALETTE = ((0, 0, 0), (200, 100, 0))


def test_overlay_mixes_by_opacity_away_from_borders():
    mask = np.zeros((8, 8), dtype=np.uint8)
    mask[:, 4:] = 1
    drawn = np.array(draw.overlay(Image.new("RGB", (8, 8), (100,) * 3), mask, PALETTE, opacity=0.5))
    assert drawn[3, 0].tolist() == [50, 50, 50]
    assert drawn[3, 7].tolist() == [150, 100, 50]
    assert drawn[3, 4].tolist() == [200, 100, 0]  # the border, in full colour


def test_overlay_enlarges_the_mask():
    mask = np.array([[0, 1]], dtype=np.uint8)
    drawn = draw.overlay(Image.new("RGB", (40, 10)), mask, PALETTE, opacity=1)
    assert (drawn.getpixel((19, 5)), drawn.getpixel((20, 5))) == PALETTE


def test_legend_swatch_shows_the_classs_colour():
    image = Image.new("RGB", (400, 300), (255, 255, 255))
    drawn = np.array(draw.legend(image, {"road": 0.7, "sky": 0.3}, {"road": (9, 99, 199)} | SKY))
    for colour in ((9, 99, 199), SKY["sky"]):
        assert (drawn == colour).all(2).sum() > 50


def test_legend_of_many_classes_stays_inside_a_small_picture(monkeypatch):
    lines = []
    monkeypatch.setattr(
        "PIL.ImageDraw.ImageDraw.text", lambda _, place, text, **__: lines.append((place, text))
    )
    shares = {f"class {i}": 1 / 40 for i in range(40)}
    draw.legend(Image.new("RGB", (96, 96)), shares, dict.fromkeys(shares, (1, 2, 3)))
    assert all(0 <= y < 96 for (_, y), _ in lines)
    assert any("more" in text for _, text in lines)


def test_legend_sums_up_what_is_too_small(monkeypatch):
    texts = []
    monkeypatch.setattr(
        "PIL.ImageDraw.ImageDraw.text", lambda _, place, text, **__: texts.append(text)
    )
    shares = {"road": 0.992, "sky": 0.004, "car": 0.004}
    draw.legend(Image.new("RGB", (400, 300)), shares, dict.fromkeys(shares, (1, 2, 3)))
    assert texts == ["road", "99.2%", "2 more", "0.8%"]


def test_boxes_out_of_the_picture_are_cut_not_refused():
    image = Image.new("RGB", (50, 40))
    corners = np.array([[-20, -20, 500, 500], [60, 60, 10, 10], [48, 2, 49, 3]], dtype=np.float32)
    drawn = draw.boxes(image, corners, np.array([0, 1, 2]), np.full(3, 0.5), "abc")
    assert drawn.getpixel((0, 39)) == draw.class_colour(0)


def test_the_best_box_is_drawn_last():
    image = Image.new("RGB", (200, 200))
    corners = np.array([[50, 50, 150, 150]] * 2, dtype=np.float32)
    drawn = draw.boxes(image, corners, np.array([3, 4]), np.array([0.9, 0.5]), "abcde")
    assert drawn.getpixel((150, 100)) == draw.class_colour(3)


def test_no_boxes_leave_the_picture_as_it_is():
    image = Image.new("RGB", (20, 20), (1, 2, 3))
    none = np.zeros((0, 4)), np.zeros(0, dtype=int), np.zeros(0)
    assert np.array_equal(draw.boxes(image, *none, ()), image)


def test_a_bars_length_follows_its_score():
    image = Image.new("RGB", (640, 480))
    filled = [
        (np.array(draw.bars(image, ["cat"], [score])) == draw.class_colour(0)).all(2).sum()
        for score in (0.25, 0.5)
    ]
    assert filled[1] == pytest.approx(2 * filled[0], rel=0.05)


def test_long_names_are_cut_to_the_room():
    font = ImageFont.load_default(12)
    cut = draw._shortened("a very long class name indeed", font, 80)
    assert font.getlength(cut) <= 80
    assert cut.endswith("...")


def test_colours_of_eighty_classes_are_all_different():
    assert len({draw.class_colour(index) for index in range(80)}) == 80


SKY = {"sky": (70, 130, 180)}
