from dataclasses import dataclass
from petlbench.method import Method, setting


@dataclass(frozen=True)
class Mine(Method):
    rank: Rank = 3
