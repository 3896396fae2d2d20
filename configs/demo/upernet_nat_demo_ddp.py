# The demo's UPerNet in several processes, with DDP. After
# nat-mm make-scenes work_dirs/demo/data:
# tools/dist_train.sh THIS_FILE 2
_base_ = ['./upernet_nat_demo.py', '../_base_/strategies/ddp.py']
