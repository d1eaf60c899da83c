from dataclasses import dataclass
from petlbench.method import Method, setting


@dataclass(frozen=True)
class Mine(Method):
    rank: int = setting(0, at_least=1)
