from dataclasses import dataclass
from petlbench.method import Method, setting


@dataclass(frozen=True)
class Mine(Method):
    def require(self, shape):
        shape.no_such_fact
