import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from close import assert_within
from espnetv2.data import camvid
from espnetv2.data.preprocess import CONVENTIONS, Preprocessing
from espnetv2.data.sample import Sample
from espnetv2.errors import UserError
from espnetv2.tasks.evaluate import evaluate, network_predict
from espnetv2.tasks.protocols import DEFAULTS, PROTOCOLS, choose


class Made:
    """A data set in memory."""

    palette = None

    def __init__(self, targets, *, classes, scored, groups=None, ignore=255):
        self.targets = targets
        self.classes = tuple(classes)
        self.scored, self.ignore, self.groups = scored, ignore, groups or {}

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        target = self.targets[index]
        size = (4, 4) if isinstance(target, int) else target.shape[::-1]
        return Sample(Image.new("RGB", size, (index, 0, 0)), target, str(index))


def _masks(*rows):
    return [np.array(row, dtype=np.uint8) for row in rows]


def _answers(*maps, channels):
    """A predictor that knows a picture by its red and answers with a stored map."""

    def predict(images):
        chosen = [torch.tensor(maps[image.getpixel((0, 0))[0]]) for image in images]
        return torch.stack([F.one_hot(m, channels).permute(2, 0, 1).float() for m in chosen])

    return predict


ROAD_CAR = Made(
    _masks([[0, 0, 0, 1], [1, 1, 2, 2]], [[0, 0, 0, 0], [0, 0, 2, 2]]),
    classes=("road", "car", "void"),
    scored=2,
    ignore=2,
)
SAID = _answers(
    [[0, 0, 1, 1], [1, 2, 0, 1]],
    [[0, 0, 0, 0], [0, 0, 0, 0]],
    channels=3,
)


def test_void_counted_and_void_ignored_match_counts_by_hand():
    scores = evaluate(SAID, ROAD_CAR, ["void-counted", "void-ignored"])
    # rows road, car, void: [8 1 0] [0 2 1] [3 1 0]
    counted, ignored = scores["void-counted"], scores["void-ignored"]
    assert_within("counted", counted.metrics["mean_iou"], 50 * (8 / 12 + 2 / 5), 1e-9)
    assert_within("ignored", ignored.metrics["mean_iou"], 50 * (8 / 9 + 2 / 4), 1e-9)
    assert_within("recall", counted.metrics["mean_recall"], 50 * (8 / 9 + 2 / 3), 1e-9)
    assert_within("accuracy", ignored.metrics["global_accuracy"], 100 * 10 / 12, 1e-9)


def test_void_has_a_line_of_its_own_only_when_counted():
    scores = evaluate(SAID, ROAD_CAR, ["void-counted", "void-ignored"])
    assert [score.averaged for score in scores["void-counted"].per_class.values()] == [1, 1, 0]
    assert list(scores["void-ignored"].per_class) == ["road", "car"]
    assert scores["void-counted"].per_class["void"].count == 4


def test_scores_do_not_depend_on_the_batch():
    single = evaluate(SAID, ROAD_CAR, ["void-counted"])["void-counted"]
    both = evaluate(SAID, ROAD_CAR, ["void-counted"], batch_size=2)["void-counted"]
    assert single.metrics == both.metrics


def test_all_protocols_share_one_forward_pass():
    calls = []

    def predict(images):
        calls.append(len(images))
        return SAID(images)

    evaluate(predict, ROAD_CAR, choose(["all"], dataset="camvid"))
    assert calls == [1, 1]


def test_limit_and_progress_tell_the_same_pictures():
    seen = []
    scores = evaluate(
        SAID, ROAD_CAR, ["official"], limit=1, progress=lambda *place: seen.append(place)
    )
    assert (scores["official"].pictures, seen) == (1, [(1, 1)])


def test_official_enlarges_labels_and_bilinear_enlarges_logits():
    truth = Made(_masks([[0] * 5 + [1] * 3]), classes="ab", scored=2)
    # at the network's width of 2, a certain 0 beside a hesitant 1
    logits = torch.tensor([[[[4.0, 0.0]], [[0.0, 1.0]]]])
    scores = evaluate(lambda _: logits, truth, ["official", "full-size-bilinear"])
    assert scores["full-size-bilinear"].metrics["mean_iou"] == 100
    assert_within("nearest", scores["official"].metrics["mean_iou"], 50 * (4 / 5 + 3 / 4), 1e-9)


def test_train_size_shrinks_labels_and_tells_the_training_meters_value():
    truth = Made(_masks([[0, 0, 1, 1]] * 4), classes=("a", "b", "none"), scored=2)
    said = _answers([[0, 1], [0, 0]], channels=3)
    metrics = evaluate(said, truth, ["train-size"])["train-size"].metrics
    assert_within("mean", metrics["mean_iou"], 50 * (2 / 3 + 1 / 2), 1e-9)
    assert_within("meter", metrics["meter_mean_iou"], metrics["mean_iou"] * 2 / 3, 1e-9)


def test_a_void_that_was_trained_as_a_class_gives_no_training_meters_value():
    metrics = evaluate(SAID, ROAD_CAR, ["train-size"])["train-size"].metrics
    assert "meter_mean_iou" not in metrics


def test_a_confusion_inside_a_category_does_not_hurt_the_category():
    truth = Made(_masks([[0, 1, 2]]), classes="abc", scored=3, groups={"ab": (0, 1), "c": (2,)})
    metrics = evaluate(_answers([[1, 0, 2]], channels=3), truth, ["official"])["official"].metrics
    assert metrics["category_mean_iou"] == 100
    assert_within("classes", metrics["mean_iou"], 100 / 3, 1e-9)


def test_a_class_that_never_appears_is_left_out_of_the_mean():
    truth = Made(_masks([[0, 0]]), classes="ab", scored=2)
    score = evaluate(_answers([[0, 0]], channels=2), truth, ["official"])["official"]
    assert score.metrics["mean_iou"] == 100
    assert math.isnan(score.per_class["b"].values["iou"])
    assert json.loads(json.dumps(score.to_json()))["per_class"]["b"]["values"]["iou"] is None


def test_top_one_and_top_five_match_counts_by_hand():
    truth = Made([0, 1, 2, 2], classes="abcdefg", scored=7)
    order = [
        [0, 1, 2, 3, 4, 5, 6],
        [0, 1, 2, 3, 4, 5, 6],
        [6, 5, 4, 3, 2, 1, 0],
        [6, 5, 4, 3, 1, 0, 2],
    ]

    def predict(images):
        rows = torch.tensor([order[image.getpixel((0, 0))[0]] for image in images])
        return torch.zeros(rows.shape).scatter(
            1, rows, torch.arange(7.0, 0, -1).expand(len(rows), 7)
        )

    score = evaluate(predict, truth, ["center-crop"], batch_size=3)["center-crop"]
    assert score.metrics == {"top1": 25.0, "top5": 75.0}
    assert score.per_class["c"].values == {"top1": 0.0, "top5": 50.0}


def test_a_network_of_another_data_set_is_refused():
    with pytest.raises(UserError, match="21 classes but the data set 2 and void"):
        evaluate(lambda _: torch.zeros(1, 21, 2, 4), ROAD_CAR, ["official"])
    with pytest.raises(UserError, match="not label maps"):
        evaluate(lambda _: torch.zeros(1, 3), ROAD_CAR, ["official"])
    truth = Made([0], classes="abcdefg", scored=7)
    with pytest.raises(UserError, match="7 classes"):
        evaluate(lambda _: torch.zeros(1, 6), truth, ["center-crop"])


@pytest.mark.parametrize(
    ("protocols", "message"),
    [
        (["offical"], "did you mean official"),
        (["official", "center-crop"], "not of one task"),
        ([], "at least one"),
    ],
)
def test_protocols_that_make_no_sense_are_refused(protocols, message):
    with pytest.raises(UserError, match=message):
        evaluate(SAID, ROAD_CAR, protocols)


def test_nothing_to_judge_is_refused():
    with pytest.raises(UserError, match="nothing to evaluate"):
        evaluate(SAID, ROAD_CAR, ["official"], limit=0)


def test_camvids_default_is_both_treatments_of_void():
    assert choose([], dataset="camvid") == ("void-counted", "void-ignored")
    assert {name for names in DEFAULTS.values() for name in names} <= set(PROTOCOLS)


def test_a_protocol_of_another_task_is_refused():
    with pytest.raises(UserError, match="'center-crop' does not fit camvid"):
        choose(["center-crop"], dataset="camvid")
    with pytest.raises(UserError, match="did you mean official"):
        choose(["offical"], dataset="cityscapes")


def test_small_logits_come_back_at_the_inputs_size_with_corners_aligned():
    network = nn.AvgPool2d(8)
    ramp = Image.fromarray(np.arange(32, dtype=np.uint8)[None].repeat(32, 0)).convert("RGB")
    plain = Preprocessing(mean=(0, 0, 0), std=(1, 1, 1), unit=1.0)
    row = network_predict(network, plain)([ramp])[0, 0, 16]
    assert_within("corners", row[[0, -1]], [3.5, 27.5], 1e-5)
    assert_within("steps", row.diff(), np.full(31, 24 / 31), 1e-5)


IOU_COUNTED = [90.83, 70.35, 26.83, 92.87, 76.03, 61.79, 30.91, 13.37, 72.88, 34.29, 41.98, 25.67]
IOU_IGNORED = [91.57, 71.85, 27.61, 93.22, 77.95, 63.68, 31.41, 13.99, 75.18, 38.77, 43.70]
RECALL = [95.05, 78.88, 38.63, 95.61, 91.41, 76.58, 47.27, 20.03, 85.84, 69.10, 52.94, 48.92]


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.timeout(3000)  # four minutes on two free cores, but they may be shared
def test_the_released_camvid_file_scores_what_was_published(shared):
    from espnetv2.weights.load import load_network

    loaded = load_network(shared / "weights/espnet/decoder/espnet_p_2_q_8_camvid.pth")
    assert loaded.preprocessing == CONVENTIONS["espnet-camvid"]
    scores = evaluate(
        network_predict(loaded.network, loaded.preprocessing),
        camvid.read(shared / "data/camvid", "test"),
        ["void-counted", "void-ignored"],
    )
    counted, ignored = scores["void-counted"], scores["void-ignored"]
    assert_within("mIoU, README", counted.metrics["mean_iou"], 55.649, 0.005)
    assert_within("class average, README", counted.metrics["mean_recall"], 68.303, 0.005)
    assert_within("mIoU", ignored.metrics["mean_iou"], 57.17, 0.01)
    assert_within("accuracy", ignored.metrics["global_accuracy"], 85.80, 0.01)
    for name, score, values in (
        ("iou", counted, IOU_COUNTED),
        ("iou", ignored, IOU_IGNORED),
        ("recall", counted, RECALL),
    ):
        found = [line.values[name] for line in score.per_class.values()]
        assert_within(f"{name}, {score.protocol}", found, values, 0.05)
