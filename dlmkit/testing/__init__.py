"""For tests of dlmkit and of plugins: exact oracles."""
