"""Great Expectations at the doors: suites as functions, facts they judge, and the gate that stops a day."""
