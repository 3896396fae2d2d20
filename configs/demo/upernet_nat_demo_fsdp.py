# The demo's UPerNet in several processes, with FSDP. After
# python -m nat_mm.datasets work_dirs/demo/data:
# tools/dist_train.sh THIS_FILE 2
_base_ = ['./upernet_nat_demo.py', '../_base_/strategies/fsdp.py']
