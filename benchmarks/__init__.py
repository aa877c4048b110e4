"""What homestretch costs, against others and against the machine. See README.md in this folder."""
