"""Reports what a model costs: a table for people, JSON for programs."""

import json
from dataclasses import dataclass

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from nat_mm.analysis.flops import ModelCosts


@dataclass(frozen=True)
class FlopsReport:
    """The costs of a model, with what they were counted for.

    Attributes:
        config: Path of the config.
        model: Type of the model.
        shape: Height and width of the image.
        convention: What is counted, where that needs saying; may be empty.
        costs: What the model costs.
    """

    config: str
    model: str
    shape: tuple[int, int]
    convention: str
    costs: ModelCosts

    def as_json(self) -> str:
        """Returns all numbers, unrounded; ``modules`` omits modules with neither cost."""
        costs = self.costs
        report = {
            'config': self.config,
            'model': self.model,
            'shape': self.shape,
            'parameters': costs.parameters[''],
            'multiply_adds': costs.multiply_adds[''],
            'neighborhood_attention_multiply_adds': costs.neighborhood_attention,
            'modules': {
                name: {
                    'parameters': costs.parameters[name],
                    'multiply_adds': costs.multiply_adds[name],
                }
                for name in self._modules()
            },
        }
        return json.dumps(report, indent=2)

    def print_table(self, *, depth: int) -> None:
        """Prints the modules down to a depth, in the order of the model.

        Modules with less than a thousandth of the parameters and of the multiply-adds are left out.

        Args:
            depth: Number of levels below the whole model.
        """
        costs = self.costs
        parameters, multiply_adds = costs.parameters[''], costs.multiply_adds['']
        table = Table('module', box=SIMPLE)
        for title in ('parameters', 'multiply-adds', 'share'):
            table.add_column(title, justify='right')

        def add_row(title: str, own_parameters: int, own_multiply_adds: int) -> None:
            table.add_row(
                title,
                f'{own_parameters / 1e6:.2f} M',
                f'{own_multiply_adds / 1e9:.2f} G',
                f'{own_multiply_adds / max(1, multiply_adds):.1%}',
            )

        add_row(self.model, parameters, multiply_adds)
        table.add_section()
        outside = multiply_adds
        for name in self._modules():
            costs_here = costs.parameters[name], costs.multiply_adds[name]
            level = name.count('.')
            if level == 0:
                outside -= costs_here[1]
            if level < depth and (
                costs_here[0] * 1000 >= parameters or costs_here[1] * 1000 >= multiply_adds
            ):
                add_row('  ' * level + name.rpartition('.')[2], *costs_here)
        if outside:
            add_row('outside of these', 0, outside)
        height, width = self.shape
        console = Console()
        console.print(table)
        notes = [f'One image of {height} x {width}', self.convention]
        attention = costs.neighborhood_attention
        if attention:
            notes.append(f'neighborhood attention without projections {attention / 1e9:.2f} G')
        console.print('; '.join(filter(None, notes)) + '.')

    def _modules(self) -> list[str]:
        costs = self.costs
        return [
            name
            for name, parameters in costs.parameters.items()
            if name and (parameters or costs.multiply_adds[name])
        ]
