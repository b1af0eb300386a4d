"""Let a language model write: words drawn one by one, each given all those before it.

python examples/sample_language.py WEIGHTS [--words 40] [--begin "the company"] [--temperature 0.8]

WEIGHTS is the model.safetensors of `espnetv2 train language`.
"""

import argparse

import torch

from espnetv2.weights.load import load_network


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights")
    parser.add_argument("--words", type=int, default=40)
    parser.add_argument("--begin", default="the")
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    loaded = load_network(arguments.weights)
    numbers = {word: number for number, word in enumerate(loaded.classes)}
    begin = [numbers.get(word, numbers["<unk>"]) for word in arguments.begin.split()]
    torch.manual_seed(arguments.seed)
    text, state = list(begin), None
    tokens = torch.tensor(begin)[:, None]  # words x texts
    with torch.inference_mode():
        for _ in range(arguments.words):
            logits, state = loaded.network(tokens, state)
            scores = logits[-1, 0] / arguments.temperature
            scores[numbers["<unk>"]] = -torch.inf
            tokens = torch.multinomial(scores.softmax(0), 1)[None]
            text.append(int(tokens))
    words = " ".join(loaded.classes[number] for number in text)
    print(words.replace(" <eos>", ".\n").strip())


if __name__ == "__main__":
    main()
