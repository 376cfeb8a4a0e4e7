module static

go 1.22
