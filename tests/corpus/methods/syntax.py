def attach(:
