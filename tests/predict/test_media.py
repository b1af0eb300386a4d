"""Inputs as the user types them; videos in and out."""

import os
import threading
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from espnetv2.errors import UserError
from espnetv2.predict.media import Source, ahead, find_sources
from espnetv2.predict.output import check_folder, replacing
from espnetv2.predict.pipeline import Clock, look_at, read_pictures
from espnetv2.predict.video import VideoReader, VideoWriter

av = pytest.importorskip("av")


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def test_a_folder_gives_its_own_pictures_and_videos_sorted(tmp_path):
    touch(tmp_path / "b.JPG", tmp_path / "a.png", tmp_path / "c.mp4", tmp_path / "notes.txt")
    touch(tmp_path / "deeper" / "d.png", tmp_path / "._a.png")
    found = find_sources([str(tmp_path)])
    assert [(s.kind, s.name) for s in found] == [("picture", "a"), ("picture", "b"), ("video", "c")]


def test_patterns_files_and_cameras_are_found_each_once(tmp_path):
    touch(tmp_path / "a.png", tmp_path / "b.png", tmp_path / "odd[1].png")
    words = [str(tmp_path / "b.png"), str(tmp_path / "?.png"), str(tmp_path / "odd[1].png"), "0"]
    found = find_sources(words)
    assert [s.name for s in found] == ["b", "a", "odd[1]", "camera0"]
    assert found[-1].kind == "camera"


def test_equal_names_do_not_share_their_results(tmp_path):
    touch(tmp_path / "1" / "x.jpg", tmp_path / "2" / "X.jpg", tmp_path / "2" / "x-2.jpg")
    touch(tmp_path / "3" / "x.mp4")
    found = find_sources([str(tmp_path / n) for n in "123"])
    names = [source.name.lower() for source in found]
    assert len(set(names)) == 4
    assert names[0] == "x"


def test_results_never_take_the_place_of_a_source(tmp_path):
    touch(tmp_path / "clip.mp4", tmp_path / "y.jpg", tmp_path / "y_overlay.jpg")
    found = {source.place: source.name for source in find_sources([str(tmp_path)], out=tmp_path)}
    assert found[str(tmp_path / "clip.mp4")] == "clip-2"
    assert found[str(tmp_path / "y.jpg")] == "y-2"


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("https://example.org/x.jpg", "download it first"),
        ("missing.jpg", "no such file"),
        ("*.missing", "pattern"),
        (".", "no picture or video"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(tmp_path, monkeypatch, word, hint):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=hint) as caught:
        find_sources([word])
    assert "\n" not in str(caught.value)


def test_ahead_keeps_order_and_stays_bounded():
    made = []

    def items():
        for number in range(50):
            made.append(number)
            yield number

    taken = ahead(items(), depth=3)
    assert next(taken) == 0
    assert [next(taken) for _ in range(9)] == list(range(1, 10))
    assert len(made) <= 10 + 3 + 2
    taken.close()
    assert threading.active_count() == 1 or "ahead" not in [t.name for t in threading.enumerate()]


def test_an_error_comes_out_of_ahead_at_its_place():
    def items():
        yield 1
        raise UserError("broken")

    taken = ahead(items())
    assert next(taken) == 1
    with pytest.raises(UserError, match="broken"):
        next(taken)


def test_closing_ahead_closes_what_it_reads():
    closed = []

    def items():
        try:
            yield from range(100)
        finally:
            closed.append(True)

    taken = ahead(items(), depth=1)
    next(taken)
    taken.close()
    assert closed


def test_replacing_leaves_the_old_file_when_it_fails(tmp_path):
    (tmp_path / "x.txt").write_text("old")

    def stopped():
        with replacing(tmp_path / "x.txt") as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert [p.name for p in tmp_path.iterdir()] == ["x.txt"]
    assert (tmp_path / "x.txt").read_text() == "old"
    with replacing(tmp_path / "new" / "x.txt") as temporary:
        temporary.write_text("whole")
    assert (tmp_path / "new" / "x.txt").read_text() == "whole"


def test_a_folder_that_cannot_be_written_is_refused_before_work(tmp_path):
    touch(tmp_path / "file")
    with pytest.raises(UserError, match="is a file"):
        check_folder(tmp_path / "file" / "deeper")
    with pytest.raises(UserError, match="cannot be written"), replacing(tmp_path / "file" / "x"):
        pass
    check_folder(tmp_path / "not" / "yet")
    assert not (tmp_path / "not").exists()
    if os.geteuid():
        tmp_path.chmod(0o500)
        with pytest.raises(UserError, match="permission"):
            check_folder(tmp_path / "not")


def write(path, count=7, size=(64, 48), rate=Fraction(25)):
    with VideoWriter(path, rate=rate) as writer:
        for number in range(count):
            frame = Image.new("RGB", size, (200, 20 * number, 0))
            frame.paste((0, 0, 255), (0, 0, size[0] // 2, size[1] // 2))
            writer.write(frame)


@pytest.mark.parametrize(
    ("size", "rate"),
    [((64, 48), Fraction(25)), ((63, 47), Fraction(30000, 1001)), ((48, 64), Fraction(25, 2))],
)
def test_a_video_keeps_size_rate_count_and_colours(tmp_path, size, rate):
    write(tmp_path / "x.mp4", size=size, rate=rate)
    with VideoReader(str(tmp_path / "x.mp4")) as reader:
        frames = list(reader)
        assert reader.rate == rate
        assert reader.size == size[::-1]
    assert [frame.size for frame in frames] == [size] * 7
    pixels = np.asarray(frames[6]).astype(int)
    assert np.abs(pixels[-4, -4] - (200, 120, 0)).max() < 12
    assert np.abs(pixels[3, 3] - (0, 0, 255)).max() < 12
    assert [p.name for p in tmp_path.iterdir()] == ["x.mp4"]


@pytest.mark.parametrize("turn", [0, 90, 180, -90])
def test_rotation_metadata_is_honoured(tmp_path, turn):
    upright = Image.new("RGB", (64, 32), "black")
    upright.paste((255, 0, 0), (0, 0, 32, 16))  # red top left
    stored = upright.rotate(-turn, expand=True)
    path = tmp_path / "turned.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height = stored.size
        stream.pix_fmt = "yuv420p"
        stream.set_display_rotation(turn)
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_image(stored)))
        container.mux(stream.encode(None))
    with VideoReader(str(path)) as reader:
        frame = next(iter(reader))
    assert frame.size == (64, 32)
    assert frame.getpixel((8, 4))[0] > 200
    assert frame.getpixel((56, 28))[0] < 50


def test_a_video_that_is_broken_off_leaves_nothing(tmp_path):
    def stopped():
        with VideoWriter(tmp_path / "x.mp4", rate=Fraction(25)) as writer:
            writer.write(Image.new("RGB", (32, 32)))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    with VideoWriter(tmp_path / "deeper" / "x.mp4", rate=Fraction(25)):
        pass
    assert not list(tmp_path.iterdir())


def test_what_is_no_video_is_refused(tmp_path):
    touch(tmp_path / "text.mp4")
    with pytest.raises(UserError, match="not a video"):
        VideoReader(str(tmp_path / "text.mp4"))
    with pytest.raises(UserError, match="not a video"):
        VideoReader(str(tmp_path / "missing.mp4"))
    with pytest.raises(UserError, match="camera 97"):
        VideoReader("97", camera=True)
    sound(tmp_path / "sound.mp4")
    with pytest.raises(UserError, match="only sound"):
        VideoReader(str(tmp_path / "sound.mp4"))


def test_a_video_cut_short_gives_its_good_frames_or_an_error(tmp_path):
    write(tmp_path / "x.mkv.mp4", count=30, size=(320, 240))
    data = (tmp_path / "x.mkv.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError):
        VideoReader(str(tmp_path / "cut.mp4"))  # the index of an MP4 is at its end


def sound(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


class Counting:
    """Stands in for a predictor: the result is the picture's width."""

    device = type("Device", (), {"type": "cpu"})

    def __init__(self):
        self.batches = []

    def wants_tiles(self, image):
        return False

    def preprocess(self, image):
        import torch

        return torch.zeros(1, 3, image.height, image.width)

    def run(self, batch):
        self.batches.append(len(batch))
        return batch

    def decode(self, raw, sizes):
        return [width for _, width in sizes]


def test_the_pipeline_batches_equal_sizes_and_keeps_order_past_bad_pictures(tmp_path):
    sizes = [(8, 8), (8, 8), (8, 8), None, (9, 9), (8, 8)]
    sources = []
    for number, size in enumerate(sizes):
        path = tmp_path / f"{number}.png"
        touch(path) if size is None else Image.new("RGB", size).save(path)
        sources.append(Source("picture", str(path), path.stem))
    predictor, clock = Counting(), Clock()
    looks = list(look_at(predictor, read_pictures(sources), batch_size=2, clock=clock))
    assert [look.source.name for look in looks] == list("012345")
    assert [look.result for look in looks] == [8, 8, 8, None, 9, 8]
    assert isinstance(looks[3].error, UserError)
    assert predictor.batches == [2, 1, 1, 1]
    assert clock.looks == 5


def test_large_pictures_are_read_one_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr("espnetv2.predict.pipeline.LARGE", 10)
    opened = []

    def pictures():
        for look in read_pictures(sources):
            opened.append(look.source.name)
            yield look

    Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
    sources = [Source("picture", str(tmp_path / "x.png"), str(n)) for n in range(4)]
    for number, look in enumerate(look_at(Counting(), pictures(), batch_size=3)):
        assert look.result == 8
        assert len(opened) == number + 1


def test_leaving_the_pipeline_early_ends_its_threads(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
    sources = [Source("picture", str(tmp_path / "x.png"), str(n)) for n in range(50)]
    looks = look_at(Counting(), read_pictures(sources))
    next(looks)
    looks.close()
    assert "ahead" not in [thread.name for thread in threading.enumerate()]
