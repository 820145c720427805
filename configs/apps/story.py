"""Stories: texts to sheets of facts, which they do not contradict, and adventures in a world that the program keeps.

omnia import smollm2 --run-dir runs/smollm2
omnia train configs/apps/story.py --run-dir runs/story --start runs/smollm2 --adapters lora --data.files sheets.jsonl \
  --data.controls kind name size alignment --data.target description --data.world world.json
omnia apply runs/story --input sheets.jsonl --output stories.jsonl
Rows have the facts, or a command of a conversation in the world. Of 120 sheets of spells, monsters and things 0.95 are told without a
fact of another, as of people's texts 0.94 (table stories); ten minutes on a core for 666 sheets. Adventures: table adventures.
"""

from train import Experiment, Story, fine_tuning


def get_config(arg: str = "") -> Experiment:
    data = Story(controls=("kind", "name"), length=256, written=96)
    return fine_tuning("story", data, steps=100, batch_size=8, rate=1e-3, weight_decay=0.0, dropout=0.0)
