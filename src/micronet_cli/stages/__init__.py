"""One file a stage: ``run(job) -> metrics``; the only code below the command line that sees configs."""
