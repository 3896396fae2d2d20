import nat_mm  # noqa: F401  (before mmdet and mmseg, which import mmcv.ops)
