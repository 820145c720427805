from typing import NamedTuple, Any
class Scores(NamedTuple):
    values: dict
    tables: dict = {}
    def intervals(self): return {}
