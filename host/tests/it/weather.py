"""What the weather team's graph makes of the hourly normals, worked out without it.

Reads the CSV; writes two files of as many lines: the readings as the graph is given
them, and the results as it must give them. Decimal numbers throughout, so that nothing
of the operators' arithmetic is repeated here.
"""

import csv
import sys
from decimal import Decimal

table, readings, results = sys.argv[1:]
with open(table) as rows, open(readings, "w") as given, open(results, "w") as expected:
    for row in csv.DictReader(rows):
        celsius = Decimal(row["temperature"])
        fahrenheit = (celsius * 9 / 5 + 32).quantize(Decimal("0.01"))
        kind = "cold" if celsius < 5 else "mild"
        head = f'"time":"{row["date"]}","pressure":{row["pressure"]},"temperature":{row["temperature"]}'
        given.write(f'{{{head},"wind":{row["wind"]}}}\n')
        payload = f'{{{head},"fahrenheit":{fahrenheit},"wind":{row["wind"]},"class":"{kind}"}}'
        expected.write(f'{{"topic":"weather/out/{kind}","payload":{payload}}}\n')
