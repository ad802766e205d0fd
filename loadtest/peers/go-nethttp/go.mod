module peer-go-nethttp

go 1.21
