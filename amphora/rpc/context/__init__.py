"""What a call takes along: who calls, until when, and what else the program wants to know."""
