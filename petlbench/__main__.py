from petlbench.cli import main

main()
