"""Defines what is measured, and how thoroughly."""

from dataclasses import dataclass
from itertools import product

KERNEL_SIZE = 7
MINIMUM_REPEATS = 7
MODES = ('inference', 'training step')
DTYPES = ('float32', 'bfloat16')


@dataclass(frozen=True)
class StageMap:
    """The feature map of one image in a stage, and the number of heads that share its channels."""

    height: int
    width: int
    channels: int
    heads: int

    @property
    def head_dim(self) -> int:
        return self.channels // self.heads

    def __str__(self) -> str:
        return f'{self.height}x{self.width}x{self.channels}/{self.heads}'


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of a benchmark.

    Attributes:
        threads: number of PyTorch's threads, at least 1; the caller of the measurement sets it.
        repeats: number of samples behind each median, at least 7 unless ``quick``.
        quick: whether to use small inputs, for a trial with meaningless figures.

    Raises:
        ValueError: if a number is out of range.
    """

    threads: int
    repeats: int = MINIMUM_REPEATS
    quick: bool = False

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise ValueError(f'threads must be at least 1; got {self.threads}')
        minimum = 1 if self.quick else MINIMUM_REPEATS
        if self.repeats < minimum:
            raise ValueError(f'repeats must be at least {minimum}; got {self.repeats}')

    @property
    def sample_seconds(self) -> float:
        """Minimum duration of a sample; shorter functions are called several times."""
        return 0.0 if self.quick else 0.1

    @property
    def stage_maps(self) -> tuple[StageMap, ...]:
        """Feature maps of NAT-Tiny's four stages for an 800 x 1344 image."""
        if self.quick:
            return StageMap(14, 21, 64, 2), StageMap(9, 11, 128, 4)
        return (
            StageMap(200, 336, 64, 2),
            StageMap(100, 168, 128, 4),
            StageMap(50, 84, 256, 8),
            StageMap(25, 42, 512, 16),
        )

    @property
    def inputs(self) -> tuple[tuple[int, int, int, int], ...]:
        """Shapes of the backbones' inputs, [B, 3, H, W]: detection and segmentation."""
        return ((1, 3, 64, 96),) if self.quick else ((1, 3, 800, 1344), (2, 3, 512, 512))

    @property
    def exported_sizes(self) -> tuple[tuple[int, int], ...]:
        """Height and width of the images for exported backbones: segmentation and detection."""
        return ((64, 96),) if self.quick else ((512, 512), (800, 1344))

    @property
    def modes_and_dtypes(self) -> tuple[tuple[str, str], ...]:
        """Combinations to measure; a trial skips half, as each takes several processes."""
        if self.quick:
            return tuple(zip(MODES, DTYPES, strict=True))
        return tuple(product(MODES, DTYPES))

    @property
    def sides(self) -> tuple[int, ...]:
        """Sides of the square images for the growth, in pixels."""
        return (64, 96) if self.quick else (256, 384, 512, 768, 1024)

    @property
    def matmul_size(self) -> int:
        """Side of the square matrices for measuring PyTorch's matmul rate."""
        return 256 if self.quick else 2048
