"""Every checkpoint that the three official repositories released, and ours. Does not import torch.

Sources: sacmehta/ESPNet, sacmehta/ESPNetv2, sacmehta/EdgeNets; all MIT, Sachin Mehta. Ours lie in
`shipped/`, trained from scratch; model cards are in docs/models/.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

SHIPPED = Path(__file__).with_name("shipped")
_RAW = "https://github.com/sacmehta/{repository}/raw/{commit}/{path}"


@dataclass(frozen=True)
class Published:
    """One released file.

    Attributes:
        name: Network and tag, `espnetv2_seg_s1_0.edgenets_voc_384`.
        repository: Of sacmehta; empty for ours.
        path: In the repository, at `commit`; of ours in `shipped/`.
        convention: Of preprocessing, a key of `data.preprocess.CONVENTIONS`.
        size: (height, width) of the input that the scores were reached with; None for the
            picture's own.
        labels: Key of `data.catalog.LABELS`.
        options: For the network's builder, beside the catalog's own.
        metric: What `score` is, with data set and split.
        score: As published, in percent; None where nothing was published.
        sha256: Of the file; None where it was never seen here, then pinned on first download.
    """

    name: str
    repository: str
    commit: str
    path: str
    convention: str
    labels: str
    size: tuple[int, int] | None = None
    options: Mapping[str, int | str] = field(default_factory=dict)
    metric: str = ""
    score: float | None = None
    sha256: str | None = None
    licence: str = "MIT"

    @property
    def shipped(self) -> bool:
        """Whether the file comes with the package."""
        return not self.repository

    @property
    def url(self) -> str:
        """Where the file is downloaded from."""
        return _RAW.format(repository=self.repository, commit=self.commit, path=self.path)

    @property
    def model(self) -> str:
        """The network's name in the catalog."""
        return self.name.partition(".")[0]

    @property
    def file_name(self) -> str:
        """Of the official file."""
        return self.path.rpartition("/")[2]


_IMAGENET_TOP1 = {"0.5": 57.68, "1.0": 66.09, "1.25": 67.95, "1.5": 69.17, "2.0": 72.06}


def _classifiers() -> Iterator[Published]:
    for width, score in _IMAGENET_TOP1.items():
        model = f"espnetv2_s{width.replace('.', '_')}"
        for tag, repository, commit, path in (
            (
                "edgenets_in1k",
                "EdgeNets",
                "master",
                f"model/classification/model_zoo/espnetv2/espnetv2_s_{width}_imagenet_224x224.pth",
            ),
            (
                "espnetv2_in1k",
                "ESPNetv2",
                "master",
                f"imagenet/pretrained_weights/espnetv2_s_{width}.pth",
            ),
        ):
            yield Published(
                name=f"{model}.{tag}",
                repository=repository,
                commit=commit,
                path=path,
                convention="imagenet",
                labels="imagenet",
                size=(224, 224),
                metric="ImageNet val top-1",
                score=score,
            )


_SEGMENTATION = {
    # width, data, height, width of the input: mIoU as published, sha256
    ("0.5", "city", 512, 1024): (
        53.9,
        "9412a86a30f137540ef945d08da3cb7191448956c56c41a64210dab443a9f65f",
    ),
    ("0.5", "city", 256, 512): (
        47.3,
        "63e398dec148f63c8ad117497864f99f021926b347fd4ee608036c36041e7f36",
    ),
    ("0.5", "pascal", 384, 384): (
        47.18,
        "3352b32b209e1e6492d1481734f5333876b28d8866f5c1702d01ec70255eb20c",
    ),
    ("0.5", "pascal", 256, 256): (
        39.82,
        "9c7bebecd73c603a7eb2d8833eb2c54d0627e37e731548b7833291873e0a2e67",
    ),
    ("1.0", "city", 512, 1024): (
        60.1,
        "0918c833fed889e32901ce739b1784fdd2b79f95a9aea199a469ca3394dd7a14",
    ),
    ("1.0", "city", 256, 512): (
        52.2,
        "002121eee40c31c8b74186153878452e02ef834d35f3e4a8801b3a84fdc3ec7d",
    ),
    ("1.0", "pascal", 384, 384): (
        60.22,
        "7ce2df106b62661a4e8e30098398d6b96a2a946b9546d2287500379f984301a8",
    ),
    ("1.0", "pascal", 256, 256): (
        54.14,
        "276d738e38733c136abf5ee9e8a801f5455b2751078c7c1d52a2b485460264be",
    ),
    ("1.5", "city", 512, 1024): (63.8, None),
    ("1.5", "city", 256, 512): (54.6, None),
    ("1.5", "pascal", 384, 384): (63.67, None),
    ("1.5", "pascal", 256, 256): (59.39, None),
    ("2.0", "city", 512, 1024): (66.4, None),
    ("2.0", "city", 256, 512): (
        50.4,
        "6b6f26b567c82bb4d6624387f24ed505613edafad19222e1707993fbe0d1d8f6",
    ),
    ("2.0", "pascal", 384, 384): (67.01, None),
    ("2.0", "pascal", 256, 256): (
        63.36,
        "e4883abccf8f042d422f2c66d69bd21b7af8d41680335e117eb2ee205f303d32",
    ),
}


def _segmenters() -> Iterator[Published]:
    for (width, data, tall, wide), (score, sha256) in _SEGMENTATION.items():
        city = data == "city"
        tag = f"edgenets_city_{wide}" if city else f"edgenets_voc_{wide}"
        yield Published(
            name=f"espnetv2_seg_s{width.replace('.', '_')}.{tag}",
            repository="EdgeNets",
            commit="master",
            path=f"model/segmentation/model_zoo/espnetv2/espnetv2_s_{width}_{data}_{wide}x{tall}.pth",
            convention="edgenets-segmentation",
            labels="cityscapes" if city else "voc",
            size=(tall, wide),
            options={"num_classes": 20 if city else 21},
            metric="Cityscapes val mIoU" if city else "VOC 2012 val mIoU",
            score=score,
            sha256=sha256,
        )


_ARXIV = {
    "0.5": (54.7, "ea4762a7cfe84c3ea7439eab4c7f124260584c6a7d488be08d0ae06a271b3c9f"),
    "1.0": (None, "c7a71be72fc0985bd9b7a2f6272960f42d525d487cf9ec63e551bf3b0136c997"),
    "1.5": (62.1, None),
}


def _arxiv_segmenters() -> Iterator[Published]:
    for width, (score, sha256) in _ARXIV.items():
        yield Published(
            name=f"espnetv2_seg_arxiv_s{width.replace('.', '_')}.espnetv2_city_1024",
            repository="ESPNetv2",
            commit="8ec3e8779a2dee327310206a2a20df7e1a7a02b5",  # deleted later
            path=f"segmentation/pretrained_models/espnetv2_segmentation_s_{width}.pth",
            convention="espnet-cityscapes",
            labels="cityscapes",
            size=(512, 1024),
            options={"num_classes": 20},
            metric="Cityscapes test mIoU",
            score=score,
            sha256=sha256,
        )


def _detectors() -> Iterator[Published]:
    for data, side, score in (
        ("voc", 300, 70.27),
        ("voc", 512, 75.01),
        ("coco", 300, 20.80),
        ("coco", 512, 24.54),
    ):
        official = "pascal" if data == "voc" else "coco"
        yield Published(
            name=f"espnetv2_ssd{side}_s2_0.edgenets_{data}",
            repository="EdgeNets",
            commit="master",
            path=f"model/detection/model_zoo/espnetv2/espnetv2_s_2.0_{official}_{side}x{side}.pth",
            convention="edgenets-detection",
            labels="voc-detection" if data == "voc" else "coco",
            size=(side, side),
            options={"num_classes": 21 if data == "voc" else 81},
            metric="VOC 2007 test mAP" if data == "voc" else "COCO val2017 AP",
            score=score,
        )


_ESPNET = {
    # folder, q: metric, mIoU as published, sha256
    ("encoder", 3): ("", None, "5101e9bc90dd2a57d8460e70cdfaa743f76317bf806d2d1c4adb635c8d392e77"),
    ("encoder", 5): ("", None, None),
    ("encoder", 8): (
        "Cityscapes val mIoU",
        53.3,
        "836f28a2a31bd4fc8997001ab6b620d1f9b7b274a03b32d9f3a95c17a011b438",
    ),
    ("decoder", 3): ("", None, "8f3eb198fb15e5da7fa8d258d5f0fc4a4213e1124f415f6fc54d2772d585a7fc"),
    ("decoder", 5): ("", None, None),
    ("decoder", 8): (
        "Cityscapes test mIoU",
        60.34,
        "343b0e77e8545d36113c4f3efbf1ee349256f25c97c9f9d5ddefe45f2f49763e",
    ),
}


def _espnets() -> Iterator[Published]:
    for (folder, q), (metric, score, sha256) in _ESPNET.items():
        model = f"espnet_p2_q{q}" if folder == "decoder" else f"espnet_c_p2_q{q}"
        yield Published(
            name=f"{model}.cityscapes",
            repository="ESPNet",
            commit="master",
            path=f"pretrained/{folder}/espnet_p_2_q_{q}.pth",
            convention="espnet-cityscapes",
            labels="cityscapes",
            size=(512, 1024),
            options={"num_classes": 20},
            metric=metric,
            score=score,
            sha256=sha256,
        )
    yield Published(
        name="espnet_p2_q8.camvid",
        repository="ESPNet",
        commit="master",
        path="pretrained/decoder/espnet_p_2_q_8_camvid.pth",
        convention="espnet-camvid",
        labels="camvid",
        options={"num_classes": 12, "skip": "stem+image"},
        metric="CamVid test mIoU",
        score=55.64,
        sha256="7d354a257170322086dcd4c1e89a482454cf2c9d30b085e70883878dd59301af",
    )


def _ours() -> Iterator[Published]:
    yield Published(
        name="espnetv2_seg_s0_5.camvid",
        repository="",
        commit="",
        path="espnetv2_seg_s0_5.camvid.safetensors",
        convention="edgenets-segmentation",
        labels="camvid",
        size=(360, 480),
        options={"num_classes": 11},
        metric="CamVid val mIoU",
        score=47.23,
        sha256="7fd93711d78f8a3f3a47b61d48d4abd952a63912d340e8cac72c7388bae2e4d6",
    )
    yield Published(
        name="espnetv2_s0_5.imagenette",
        repository="",
        commit="",
        path="espnetv2_s0_5.imagenette.safetensors",
        convention="imagenet",
        labels="imagenet",
        size=(128, 128),
        options={"num_classes": 10},
        metric="Imagenette val top-1, 128 pixels",
        score=83.49,
        sha256="cde5c9eb079aa6b98abc9aea3132b30fe8a8dfa6e742cc91ae999e491c11f76e",
    )


PUBLISHED: dict[str, Published] = {
    row.name: row
    for rows in (_classifiers, _segmenters, _arxiv_segmenters, _detectors, _espnets, _ours)
    for row in rows()
}
"""By name; of one network's rows the first is what its bare name loads."""


def published_for(model: str) -> list[Published]:
    """The released files of one network, the default first."""
    return [row for row in PUBLISHED.values() if row.model == model]
