"""Train a classifier from scratch with a loop of your own: the network is a plain torch module.

python examples/train_classifier.py PICTURES [--epochs 20] [--model espnetv2_s0_5]

PICTURES holds {train,val}/<class>/*. `espnetv2 train classify` does more (exact resume, averaged
weights, charts); this is for those who have a loop already.
"""

import argparse
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

import espnetv2


def loader(folder: Path, *, size: int, train: bool) -> DataLoader:
    look = [v2.RandomResizedCrop(size), v2.RandomHorizontalFlip()] if train else [v2.Resize(size)]
    to_tensor = [v2.CenterCrop(size), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
    normal = v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    pictures = ImageFolder(folder, v2.Compose([*look, *to_tensor, normal]))
    return DataLoader(pictures, batch_size=32, shuffle=train)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--model", default="espnetv2_s0_5")
    parser.add_argument("--size", type=int, default=96)
    arguments = parser.parse_args()

    train = loader(arguments.pictures / "train", size=arguments.size, train=True)
    val = loader(arguments.pictures / "val", size=arguments.size, train=False)
    network = espnetv2.create_model(arguments.model, num_classes=len(train.dataset.classes))
    optimizer = torch.optim.SGD(network.parameters(), 0.05, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.1, total_steps=arguments.epochs * len(train)
    )
    for epoch in range(arguments.epochs):
        network.train()
        for images, labels in train:
            loss = cross_entropy(network(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        with torch.inference_mode():
            network.eval()
            right = sum((network(x).argmax(1) == y).sum().item() for x, y in val)
        print(f"epoch {epoch + 1}: loss {loss:.3f}, top-1 {100 * right / len(val.dataset):.1f}")


if __name__ == "__main__":
    main()
