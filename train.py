"""Trains a few-shot segmenter and evaluates it on novel classes; or trains a base learner.

python train.py                                                 # PFENet + SVF on the embedded data
python train.py dataset=coco20i method=bam backbone=resnet50 shot=5   # BAM + SVF; first its base learner
python train.py dataset=pascal5i dataset.root=DIR backbone=resnet50 fold=1
"""

from fss.cli.commands import train as main
from fss.cli.errors import run_script

if __name__ == "__main__":
    run_script(main)
