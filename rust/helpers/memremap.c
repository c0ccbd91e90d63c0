// SPDX-License-Identifier: GPL-2.0

#include <linux/memremap.h>
#include <linux/mmzone.h>

__rust_helper void rust_helper_put_dev_pagemap(struct dev_pagemap *pgmap)
{
	put_dev_pagemap(pgmap);
}

__rust_helper struct dev_pagemap *
rust_helper_page_pgmap(const struct page *page)
{
	return page_pgmap(page);
}

__rust_helper bool
rust_helper_zone_device_pages_have_same_pgmap(const struct page *a,
					      const struct page *b)
{
	return zone_device_pages_have_same_pgmap(a, b);
}
