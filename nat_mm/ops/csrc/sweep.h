// The order in which a part of the map is processed.

#pragma once

#include <new>

#include "products.h"

namespace {

// Sweeps over a part of the map: fill(row) loads a row of neighbors, tile(rows, block) computes.
template <class Fill, class Tile>
inline void sweep(const Pass& pass, const Part& part, Scratch& scratch, Fill&& fill, Tile&& tile) {
  auto* const blocks =
      reinterpret_cast<Block*>(scratch.take(pass.strip_columns * sizeof(Block) / sizeof(float)));
  int number = 0;
  for (int column = part.column_begin; column < part.column_end;
       column += blocks[number++].tokens) {
    new (blocks + number) Block(Block::at(pass.columns, column, part.column_end));
  }
  int filled = 0;
  for (int row = part.row_begin; row < part.row_end; row += kTileRows) {
    const TileRows rows{pass.rows, row, smaller(kTileRows, part.row_end - row)};
    for (filled = larger(filled, rows.begin()); filled < rows.end(); ++filled) fill(filled);
    for (int i = 0; i < number; ++i) tile(rows, blocks[i]);
  }
}

}  // namespace
