from dataclasses import dataclass
from petlbench.method import Method, setting


class Mine(Method):
    pass
