module example.test/report

go 1.22
