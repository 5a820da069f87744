"""What tests of the loop share: a queue of requests of every kind."""

from dlmkit.sampling.requests import Request
from dlmkit.testing.markov import MarkovChain


def mixed(chain: MarkovChain, length: int, count: int) -> list[Request]:
    """Free texts, prompts, gaps and shorter texts in one queue."""
    ids = chain.sample(count, length, seed=9).tolist()
    kinds = [
        lambda i: Request.free(i, length),
        lambda i: Request.prompt(i, ids[i][:2], length),
        lambda i: Request.infill(i, [ids[i][:1], ids[i][4:]], length),
        lambda i: Request.free(i, 3),
    ]
    return [kinds[i % 4](i) for i in range(count)]
