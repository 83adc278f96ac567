"""Evaluates a trained run, a checkpoint file, or a method that trains nothing.

python evaluate.py                                          # the run that `python train.py` left
python evaluate.py fold=all shot=5 protocol=bam             # every fold, 5 x 1000 episodes
python evaluate.py checkpoint=both episodes=500 seeds=[1,2,3]
python evaluate.py model=FILE                               # a model file, or one exported to ONNX
python evaluate.py ckpt=FILE dataset=coco20i dataset.root=DIR backbone=resnet50
python evaluate.py shot=5 train_shot=1                      # what was trained with one support, with five
python evaluate.py dataset=pascal5i dataset.root=DIR trained_on=coco20i backbone=resnet50
python evaluate.py method=prior tuning=frozen               # the training-free prior mask
python evaluate.py adapt=true                               # singular values tuned on each episode's supports
python evaluate.py method=bam setting=generalized           # base classes and the novel one in one label map
"""

from fss.cli.commands import evaluate as main
from fss.cli.errors import run_script

if __name__ == "__main__":
    run_script(main)
