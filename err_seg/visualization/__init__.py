"""Everything that is drawn, and label maps and regions as files and data that other programs read."""
