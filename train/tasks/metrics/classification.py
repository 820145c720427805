import numpy as np
from train.tasks.metrics.scores import Scores
def classification_scores(truth, p, labels):
    from sklearn.metrics import f1_score
    y=p.argmax(-1)
    return Scores({"accuracy": float((y==truth).mean()), "macro_f1": float(f1_score(truth,y,average="macro"))})

def several_labels_scores(*a): return Scores({})
