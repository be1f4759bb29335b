"""Reader studies: what people see in real and synthetic images, asked blindly and measured as detection theory does.

``study.read`` reads a study, ``app.create`` serves it, ``report.write_report`` says what came of it.
"""
